"""A small grid (no Ray) with a pricer that kills every process it can reach, started again until all jobs have ended.

Run as `python -m tests.support.doomed_grid DIRECTORY` it must be the first process of a PID namespace; it prints what
became of the jobs, as JSON. With `grid` as second word it is the grid, whose nodes take some seconds to come up.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from raygrid.errors import UnavailableError
from raygrid.transport.calls import DeclaredCall
from tests.support.small_grid import DirectNode, SmallGrid

GOOD = 20
MOST_STARTS = 8
LATE_S = 3.0  # later than a new leader gives a silent node up
KILLER = """
[ "$(id -u)" != 0 ] || exit 11
tr '\\0' ' ' < /proc/1/cmdline | grep -q tests.support.doomed_grid || exit 12
kill -s KILL -- -1
sleep 1000
"""


class LateNode(DirectNode):
    """A node that cannot be reached in the first seconds of the grid."""

    began = time.monotonic()

    async def _carry(self, call: DeclaredCall, args: tuple[Any, ...]) -> Any:
        if time.monotonic() < self.began + LATE_S:
            raise UnavailableError("it comes up")
        return await super()._carry(call, args)


class LateGrid(SmallGrid):
    """A small grid of such nodes."""

    node_class = LateNode


async def run(directory: Path) -> None:
    """Run the grid until its jobs have ended, or it is killed."""
    names = ["killer", *(f"good-{number}" for number in range(GOOD))]
    pricers = {"shell": {"command": ["sh", "{input}"], "sandbox": "off"}}  # in a sandbox it would kill only itself
    async with LateGrid(directory, slots=4, pricers=pricers, placement={"node_timeout_s": 2.0}) as grid:
        for name in names:
            await grid.submit(name, KILLER if name == "killer" else f"sleep 0.2; echo {name}", wait=0)
        for name in names:
            await grid.until_state(name, "done", "failed", within_s=60)


def main(directory: Path) -> None:
    """Start the grid until it ends by itself."""
    assert os.getpid() == 1, "only as the first process of a PID namespace"
    assert os.getuid() != 0, "only as an ordinary user"
    store = directory / "small" / "jobs.db"
    for starts in range(1, MOST_STARTS + 1):
        command = [sys.executable, "-m", "tests.support.doomed_grid", str(directory), "grid"]
        ended = subprocess.run(command, check=False, stdout=sys.stderr)
        with closing(sqlite3.connect(store)) as jobs, jobs:
            found = jobs.execute("select job_id, state, reason, message, losses from jobs").fetchall()
            jobs.execute("delete from leases")  # leaders of a small grid hold theirs for an hour
        print(f"start {starts} ended with {ended.returncode}: {found}", file=sys.stderr)
        if ended.returncode == 0:
            break
    print(json.dumps({"starts": starts, "jobs": {job_id: rest for job_id, *rest in found}}))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(run(Path(sys.argv[1])))
    else:
        main(Path(sys.argv[1]))
