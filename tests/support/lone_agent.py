"""A node agent without a leader: orders go in, reports come out, all with real processes.

Run as a script it is an agent process of its own that can be killed: it runs the scripts that stand in its standard
input, one a line, and prints `ready` before and `accepted` after it took them. A second word is the number of seconds
of a freeze after which it is killed.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from raygrid.blobs import BlobStore
from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, AttemptReport, BlobSlice, JobSpec, SharedData
from raygrid.node import agent as agent_module
from raygrid.node.agent import NodeAgent
from raygrid.settings.pricer import Pricer
from raygrid.settings.sections import Node
from tests.support.waiting import pauses

SHELL = {"shell": Pricer(command=("sh", "{input}"))}


def order(job_id: str, script: str, number: int = 1, *, data: Sequence[SharedData] = (), **more: Any) -> AttemptOrder:
    """An order to run a shell script."""
    content = script.encode()
    place = BlobSlice("", 0, len(content), hashlib.sha256(content).hexdigest())
    spec = JobSpec(job_id, "shell", "1", place, "job.sh", inline=content, data=tuple(data), **more)
    return AttemptOrder(AttemptId(job_id, number), spec)


def unprotected(pricers: dict[str, Pricer]) -> dict[str, Pricer]:
    """The same pricers without a sandbox."""
    return {name: each.model_copy(update={"sandbox": "off"}) for name, each in pricers.items()}


def lone_agent(
    directory: Path,
    *,
    slots: int | None = 2,
    own_process: bool = False,
    pricers: dict[str, Pricer] | None = None,
    **settings: Any,
) -> NodeAgent:
    """An agent that has its root and its blob store under a directory; not opened yet."""
    node = Node(slots=slots, kill_grace_s=0.2, **settings)
    blobs = BlobStore(str(directory / "blobs"))
    return NodeAgent("node-1", directory / "root", pricers or SHELL, node, blobs, own_process=own_process)


def wait_until(condition: Callable[[], object], within_s: float = 60.0) -> None:
    """Wait for a condition; fail if it does not come."""
    deadline = time.monotonic() + within_s
    for pause_s in pauses():
        if condition():
            return
        assert time.monotonic() < deadline, f"waited {within_s} s"
        time.sleep(pause_s)


async def reports_of(agent: NodeAgent, count: int, term: int = 1) -> dict[AttemptId, AttemptReport]:
    """Wait until an agent has so many reports; they stay with it."""
    deadline = asyncio.get_running_loop().time() + 60
    while True:
        reply = await agent.reports(term, 0, 0, 0)
        if len(reply.reports) >= count:
            return {report.attempt: report for report in reply.reports}
        assert asyncio.get_running_loop().time() < deadline, f"{len(reply.reports)} of {count} reports"
        await asyncio.sleep(0.02)


def main(directory: str, frozen_s: str = "15") -> None:
    """Be an agent until killed."""
    agent_module.FROZEN_S = float(frozen_s)
    agent = lone_agent(Path(directory), slots=4, own_process=True)
    agent.open()
    print("ready", flush=True)
    agent.start(1, [order(f"job-{number}", line) for number, line in enumerate(sys.stdin.read().splitlines())])
    print("accepted", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
