"""A grid whose pricers kill every process that they can reach: run by `test_kill_everything.py` in a namespace.

`python -m tests.faults.grid_killer DIRECTORY PORT` starts the grid again after each crash and prints what became of its
jobs, as JSON. It must be the first process of its PID namespace, and the pricer looks for it there before it fires.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raygrid.client import Client
from raygrid.system.lock import holder
from raygrid.system.proc import life_of
from tests.support.job_directories import job_directories

GOOD = 20
MOST_STARTS = 7
# A shell's own `kill` spares the shell itself, and PID 1 of the namespace.
KILLER = """
[ "$(id -u)" != 0 ] || exit 11
tr '\\0' ' ' < /proc/1/cmdline | grep -q tests.faults.grid_killer || exit 12
[ "$(ls -d /proc/[0-9]* | wc -l)" -lt 300 ] || exit 13
kill -s KILL -- -1
sleep 1000
"""


def raygrid(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command; processes that it leaves in the background are not waited for."""
    command = [sys.executable, "-c", "from raygrid.cli import app; app()", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class World:
    """The grid, and what is known of it."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{port}"
        self.starts = 0
        self.up_words = ("up", "--pricer", "sh {input}", "--slots", "4", "--port", str(port))
        os.environ["RAYGRID__SANDBOX"] = "off"  # in a sandbox the killer reaches only itself

    def up(self) -> None:
        """Start the grid; it may be gone again before it is up."""
        started = raygrid(*self.up_words)
        self.starts += 1
        self.tell(f"up {self.starts}: exit code {started.returncode} {started.stderr[-300:]}")

    def tell(self, words: str) -> None:
        print(time.strftime("%H:%M:%S"), words, file=sys.stderr, flush=True)

    def runs(self) -> bool:
        """Whether its supervisor lives."""
        while True:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(-1, os.WNOHANG)[0]:
                    continue  # this is PID 1: orphans are its children
            return holder(self.directory / "default") is not None

    def left(self) -> str:
        """What a crash has left, for the message of a failed test."""
        grid = self.directory / "default"
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(grid / "jobs.db")) as store:
            rows = store.execute("select job_id, state, attempts, failures, losses from jobs where state != 'done'")
            directories = [path.name for path in job_directories(grid / "nodes")]
            notes = [path.read_text() for path in (grid / "nodes").glob("*/unfinished")]
            return f"jobs {rows.fetchall()}, directories {directories}, unfinished {notes}"
        return "no job store"

    def jobs(self) -> dict[str, Any]:
        with Client(self.url, retry_s=0, timeout=5) as client:
            return {job.job_id: job for job in client.jobs()}

    def follow(self, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Start the grid again whenever it is gone, until its jobs are as wanted; gives them."""
        while self.starts <= MOST_STARTS:
            if not self.runs():
                self.tell(f"the grid is gone; {self.left()}")
                self.up()
            with contextlib.suppress(Exception):  # it may be killed at any moment
                if done(jobs := self.jobs()):
                    return jobs
            time.sleep(0.2)
        raise SystemExit(f"after {self.starts} starts there is no end")


def main(directory: str, port: str) -> None:
    """Let one job kill the grid until it is poison, another until it is cancelled."""
    assert os.getpid() == 1, "only as the first process of a PID namespace"
    assert os.getuid() != 0, "only as an ordinary user"
    world = World(Path(directory), int(port))
    world.up()
    with Client(world.url, retry_s=0, timeout=5) as client, contextlib.suppress(Exception):
        for number in range(GOOD):
            client.submit(f"sleep 0.5; echo {number}".encode(), job_id=f"good-{number}", filename="good.sh")
            if number == GOOD // 4:
                client.submit(KILLER.encode(), job_id="killer", filename="killer.sh")
    # The crash may have come before all were submitted: the same ids again are the same jobs.
    submitted = False

    def all_ended(jobs: dict[str, Any]) -> bool:
        nonlocal submitted
        if not submitted:
            with Client(world.url, retry_s=0, timeout=5) as client:
                for number in range(GOOD):
                    client.submit(f"sleep 0.5; echo {number}".encode(), job_id=f"good-{number}", filename="good.sh")
                submitted = True
            return False
        return len(jobs) == GOOD + 1 and all(job.state in ("done", "failed", "cancelled") for job in jobs.values())

    jobs = world.follow(all_ended)
    starts = world.starts
    with Client(world.url, retry_s=0, timeout=5) as client:
        results = {name: client.job(name).result().stdout.strip() for name in jobs if name.startswith("good-")}
        with contextlib.suppress(Exception):
            client.submit(KILLER.encode(), job_id="cancelled", filename="killer.sh")
    while world.runs():
        time.sleep(0.05)
    cancelled = raygrid("cancel", "cancelled")
    second = world.follow(lambda jobs: jobs["cancelled"].state == "cancelled")
    time.sleep(2)
    still_up = world.runs()
    raygrid("down")
    world.runs()
    left = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if pid > 1 and life_of(pid)]
    print(
        json.dumps(
            {
                "starts": starts,
                "jobs": {name: (job.state, job.reason, job.message, job.attempts) for name, job in jobs.items()},
                "results": results,
                "cancel": cancelled.stdout + cancelled.stderr,
                "cancelled": (second["cancelled"].state, second["cancelled"].attempts),
                "starts_for_cancelled": world.starts - starts,
                "still_up": still_up,
                "left": left,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
