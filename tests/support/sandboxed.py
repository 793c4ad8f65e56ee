"""An agent whose pricers run in sandboxes with all mechanisms, for tests with real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from raygrid.models import AttemptReport
from raygrid.node.agent import NodeAgent
from raygrid.node.sandbox.mechanisms import probe
from raygrid.system.proc import ChildrenOf, process_table
from tests.support.lone_agent import lone_agent, order, reports_of

NEEDS_MOUNTS = pytest.mark.skipif(
    not probe().mounts, reason="sandboxes that hide files need a mount namespace: run as root, or allow user namespaces"
)


@contextmanager
def on_disk() -> Iterator[Path]:
    """A directory outside of `/dev/shm`; a grid that has its directories there has no `/dev/shm` for each sandbox."""
    place = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="raygrid-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def sandboxing_agent(**settings: Any) -> Iterator[NodeAgent]:
    """An open agent on disk, with one slot unless `settings` have another number."""
    with on_disk() as place:
        agent = lone_agent(place, **{"slots": 1, **settings})
        with contextlib.closing(ChildrenOf(os.getpid())) as children:
            others = children.now() or set()
        agent.open()
        # Else what other tests have started in this process, such as a PostgreSQL server, would be strays of jobs.
        agent._watchdog._non_pricers.update(others)
        try:
            yield agent
        finally:
            agent.close()
            _reap_orphans()


def _reap_orphans() -> None:
    """Reap what jobs left, which would be strays to the next agent in this process; a grid's agent ends instead."""
    for process in process_table():
        if process.is_zombie and process.parent == os.getpid() and process.session != os.getsid(0):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def printed(agent: NodeAgent, report: AttemptReport) -> str:
    """What the pricer of an attempt that went well printed to its stdout."""
    assert report.exit_code == 0, report
    return contents(agent, report)["stdout.txt"].decode()


def contents(agent: NodeAgent, report: AttemptReport) -> dict[str, bytes]:
    """The files of a result."""
    assert report.result is not None, report
    with zipfile.ZipFile(BytesIO(agent._blobs.read_now(report.result))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


async def run_each(agent: NodeAgent, *scripts: str, pricer: str = "shell", **more: Any) -> list[AttemptReport]:
    """Run scripts one after another; the files of each were removed before the next one begins."""
    before = len((await agent.reports(1, 0, 0, 0)).reports)
    ended = []
    for number, script in enumerate(scripts, before):
        job = order(f"job-{number}", script, **more)
        agent.start(1, [replace(job, spec=replace(job.spec, pricer=pricer))])
        reports = await reports_of(agent, number + 1)
        ended.append(next(report for attempt, report in reports.items() if attempt.job_id == f"job-{number}"))
    return ended
