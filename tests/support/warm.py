"""Warm pricers for tests: real programs, written where a test needs them, behind a real node agent.

Run as a script it is an agent process of its own that can be killed: it has run one job, runs a second that never ends,
and prints `ready`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from raygrid.blobs import BlobStore, data_key
from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, AttemptReport, BlobSlice, JobSpec, SharedData
from raygrid.node.agent import NodeAgent
from raygrid.settings.pricer import Pricer
from raygrid.settings.sections import Node
from raygrid.system.proc import process_table
from raygrid.system.processes import mark_of

ROOT = Path(__file__).parents[2]

# Python that runs its input, with a count of the program's starts; most tests put the steps into the input.
RUNS_ITS_INPUT = """
import os
import subprocess
import sys
import time
from pathlib import Path

from raygrid.pricer import serve

with open(os.environ["STARTS"], "a") as starts:
    starts.write("x")


def main(job):
    scope = {"job": job, "__name__": "job"}
    exec(compile(job.input.read_text(), "job", "exec"), {**globals(), **scope})


def setup(data):
    with open(os.environ["STARTS"] + ".setups", "a") as setups:
        setups.write("x")
    return {name: path.read_text() for name, path in data.items()}


if __name__ == "__main__":
    serve(main, setup, fork=os.environ.get("FORK") == "1")
"""

# The same without `serve`: prints on stdout what the input contains.
SPEAKS_RAW = """
import json
import os
import sys
import time

with open(os.environ["STARTS"], "a") as starts:
    starts.write("x")


def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()


for line in sys.stdin:
    job = json.loads(line)

    def answer(**more):
        say(json.dumps({"number": job["number"], "exit_code": 0, **more}) + "\\n")

    exec(compile(open(job["input"]).read(), "job", "exec"))
"""


class WarmNode:
    """A node agent with the warm pricer `warm`, and others if given.

    Attributes:
        agent: the agent.
        starts: where its program leaves a mark at every start.
    """

    def __init__(
        self,
        directory: Path,
        program: str,
        *,
        slots: int = 1,
        fork: bool = False,
        node: Mapping[str, Any] | None = None,
        **pricer: Any,
    ) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.starts = directory / "starts"
        directory.mkdir(exist_ok=True)
        self.program = directory / "program.py"
        self.program.write_text(program, encoding="utf-8")
        self._env = {"PYTHONPATH": str(ROOT), "STARTS": str(self.starts), "FORK": str(int(fork))}
        self.pricers = {"warm": self.pricer(**pricer)}
        self.node = Node(slots=slots, kill_grace_s=0.5, **(node or {}))
        self.blobs = BlobStore(str(directory / "blobs"))
        self.agent = NodeAgent("node-1", self.root, self.pricers, self.node, self.blobs)
        self._seen = 0

    def pricer(self, **settings: Any) -> Pricer:
        """The warm pricer, with these settings."""
        command = (sys.executable, str(self.program))
        return Pricer(mode="warm", **{"command": command, "env": self._env, **settings})

    def __enter__(self) -> WarmNode:
        self.agent.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.agent.close()

    def start(self, *inputs: tuple[str, str], pricer: str = "warm", **more: Any) -> None:
        """Give it jobs, as pairs of job id and input."""
        self.agent.start(1, [order(job_id, text, pricer=pricer, **more) for job_id, text in inputs])

    async def run(self, job_id: str, text: str, **more: Any) -> Done:
        """Run one job to its end."""
        self.start((job_id, text), **more)
        return await self.done(job_id)

    async def done(self, job_id: str) -> Done:
        """Wait for a job's end."""
        deadline = asyncio.get_running_loop().time() + 30
        while True:
            reply = await self.agent.reports(1, 0, 0, 0)
            for report in reply.reports:
                if report.attempt.job_id == job_id:
                    return Done(report, self.blobs)
            assert asyncio.get_running_loop().time() < deadline, f"{job_id} has not ended"
            await asyncio.sleep(0.02)

    def share(self, name: str, content: str) -> SharedData:
        """Store shared data."""
        digest = hashlib.sha256(content.encode()).hexdigest()
        self.blobs.put_now(data_key(digest), content.encode())
        return SharedData(name, digest, len(content))

    @property
    def started(self) -> int:
        """How often the program was started."""
        return self.starts.stat().st_size if self.starts.exists() else 0

    @property
    def setups(self) -> int:
        """How often it loaded shared data."""
        path = Path(f"{self.starts}.setups")
        return path.stat().st_size if path.exists() else 0

    @property
    def pids(self) -> list[int]:
        """What runs with a mark of this node."""
        mine = f"{self.root}|"
        return [p.pid for p in process_table() if not p.is_zombie and (mark_of(p.pid) or "").startswith(mine)]


class Done:
    """A job that has ended, with its result."""

    def __init__(self, report: AttemptReport, blobs: BlobStore) -> None:
        self.report = report
        self.files: dict[str, str] = {}
        if report.result is not None:
            with zipfile.ZipFile(BytesIO(blobs.read_now(report.result))) as archive:
                self.files = {name: archive.read(name).decode() for name in archive.namelist()}

    @property
    def manifest(self) -> dict[str, Any]:
        """Its manifest."""
        found: dict[str, Any] = json.loads(self.files["manifest.json"])
        return found

    @property
    def stdout(self) -> str:
        """What it printed."""
        return self.files["stdout.txt"]

    @property
    def stderr(self) -> str:
        """What it printed on stderr."""
        return self.files["stderr.txt"]


def order(
    job_id: str, text: str, *, pricer: str = "warm", data: Sequence[SharedData] = (), **more: Any
) -> AttemptOrder:
    """An order to run a pricer on a text."""
    content = text.encode()
    place = BlobSlice("", 0, len(content), hashlib.sha256(content).hexdigest())
    spec = JobSpec(job_id, pricer, "1", place, "input.py", inline=content, data=tuple(data), **more)
    return AttemptOrder(AttemptId(job_id, 1), spec)


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


async def main(directory: str) -> None:
    """Be an agent with warm pricers until killed."""
    with WarmNode(Path(directory), RUNS_ITS_INPUT, slots=2) as node:
        node.start(("first", "time.sleep(0.5)"), ("second", "time.sleep(0.5)"))
        await node.done("first")
        await node.done("second")
        node.start(("endless", "subprocess.Popen(['sleep', '1000']); os.fork(); time.sleep(1000)"))
        print("ready", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
