"""A node agent in a process of its own, as in a grid: it runs jobs and closes on request, or is killed.

Orphans without a mark belong to an agent only if the process has one agent, so tests of what jobs leave behind use
this. Run as a script it reads its settings and then orders from its standard input, one JSON document a line, and
writes its reports.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from raygrid.blobs import BlobStore
from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, BlobSlice, JobSpec
from raygrid.node.agent import NodeAgent
from raygrid.node.limits import watchdog
from raygrid.settings.pricer import Pricer
from raygrid.settings.sections import Node
from raygrid.system.proc import process_table

ROOT = Path(__file__).parents[2]
# As a supervisor does, it enters a user namespace; as in a worker of Ray, a later program is the agent.
ENTRY = """
import os, sys
from pathlib import Path
from raygrid.system import user_namespace
user_namespace.enter(Path(sys.argv[1]))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def running_with(text: str) -> list[int]:
    """The processes that have a text in their command line, pytest's own apart."""
    found = []
    for process in process_table():
        try:
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if text.encode() in words and b"pytest" not in words and not process.is_zombie:
            found.append(process.pid)
    return found


class AgentProcess:
    """An agent with these pricers; use as a context manager, at whose end it is killed unless it was closed.

    It starts in a user namespace, in which an ordinary user's agent can set up sandboxes.

    Args:
        directory: its root and blob store lie here.
        pricers: settings of its pricers, by name.
        slots: its slots.
        sweep_s: how often it looks for what jobs left behind.
        name: name of its root in the directory.
        hidden: what sandboxes hide besides its root.
        node: further settings of the node.

    Attributes:
        reports: what ended, by job id: outcome, exit code, message, and the text of each file of the result.
    """

    def __init__(
        self,
        directory: Path,
        pricers: Mapping[str, Mapping[str, Any]],
        *,
        slots: int = 4,
        sweep_s: float = 1.0,
        name: str = "root",
        hidden: Sequence[Path] = (),
        **node: Any,
    ) -> None:
        self.reports: dict[str, dict[str, Any]] = {}
        self._arrived = threading.Condition()
        self._number = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENTRY, str(directory), "-m", "tests.support.agent_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
            text=True,
        )
        settings = {
            "directory": str(directory),
            "pricers": pricers,
            "node": {"slots": slots, "kill_grace_s": 0.3, **node},
            "sweep_s": sweep_s,
            "name": name,
            "hidden": [str(path) for path in hidden],
        }
        self._say(settings)
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def run(self, job_id: str, script: str, pricer: str = "shell", args: tuple[str, ...] = ()) -> str:
        """Hand a job over; gives its id."""
        self._say({"job_id": job_id, "script": script, "pricer": pricer, "args": args})
        return job_id

    def done(self, *job_ids: str, within_s: float = 60.0) -> list[dict[str, Any]]:
        """Wait for the ends of jobs."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: all(each in self.reports for each in job_ids), within_s), (
                f"{[each for each in job_ids if each not in self.reports]} have not ended"
            )
        return [self.reports[each] for each in job_ids]

    def close(self) -> None:
        """Have the agent close, and its process end."""
        self._say({"close": True})
        assert self.process.wait(timeout=30) == 0

    def _say(self, what: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            report = json.loads(line)
            with self._arrived:
                self.reports[report["job_id"]] = report
                self._arrived.notify_all()


def _result(blobs: BlobStore, place: BlobSlice | None) -> dict[str, str]:
    if place is None:
        return {}
    with zipfile.ZipFile(BytesIO(blobs.read_now(place))) as archive:
        return {name: archive.read(name).decode(errors="replace") for name in archive.namelist()}


async def _report(agent: NodeAgent, blobs: BlobStore, closed: threading.Event) -> None:
    after = 0
    while not closed.is_set():
        reply = await agent.reports(1, after, after, 0.2)
        for report in reply.reports:
            line = {
                "job_id": report.attempt.job_id,
                "outcome": report.outcome.value,
                "exit_code": report.exit_code,
                "message": report.message,
                "files": _result(blobs, report.result),
            }
            print(json.dumps(line), flush=True)
        after = reply.last


def main() -> None:
    """Be an agent until the order to close."""
    settings = json.loads(sys.stdin.readline())
    watchdog.SWEEP_S = settings["sweep_s"]
    directory = Path(settings["directory"])
    blobs = BlobStore(str(directory / "blobs"))
    pricers = {name: Pricer(**pricer) for name, pricer in settings["pricers"].items()}
    agent = NodeAgent(
        "node-1",
        directory / settings["name"],
        pricers,
        Node(**settings["node"]),
        blobs,
        own_process=True,
        hidden=settings["hidden"],
    )
    agent.open()
    closed = threading.Event()
    reporting = threading.Thread(target=asyncio.run, args=(_report(agent, blobs, closed),))
    reporting.start()
    for line in sys.stdin:
        order = json.loads(line)
        if "close" in order:
            break
        content = order["script"].encode()
        place = BlobSlice("", 0, len(content), hashlib.sha256(content).hexdigest())
        spec = JobSpec(
            order["job_id"], order["pricer"], "1", place, "job.sh", inline=content, args=tuple(order["args"])
        )
        agent.start(1, [AttemptOrder(AttemptId(spec.job_id, 1), spec)])
    closed.set()
    reporting.join()
    agent.close()


if __name__ == "__main__":
    main()
