"""The reports of a node agent: numbered, kept until they are committed, and awaited."""

from __future__ import annotations

import asyncio
import time

from raygrid.models import AttemptId, AttemptReport, Outcome
from raygrid.node.report_log import ReportLog

LIFE = "0123456789abcdef"


def report(job_id: str) -> AttemptReport:
    return AttemptReport(AttemptId(job_id, 1), Outcome.EXITED, 0)


def test_reports_are_kept_until_they_are_settled() -> None:
    """A leader that asks again gets the same reports; what it has committed is dropped."""
    log = ReportLog(LIFE)
    log.append([report("a"), report("b")])
    assert log.since(log.first) == log.since(log.first) == (report("a"), report("b"))
    log.settle(log.first + 1)
    assert (log.since(log.first), len(log)) == ((report("b"),), 1)


def test_every_life_numbers_its_reports_from_another_start() -> None:
    """A number of another life is unknown, so that it cannot settle reports of this one."""
    log, other = ReportLog(LIFE), ReportLog("f" * 32)
    log.append([report("a")])
    assert [log.knows(number) for number in (0, log.first, log.last, log.last + 1, other.first)] == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_a_closed_log_takes_no_report() -> None:
    """An agent that is stopping reports nothing: what it kills runs again elsewhere."""
    log = ReportLog(LIFE)
    log.is_closed = True
    log.append([report("a")])
    assert (log.last, len(log)) == (log.first, 0)


async def test_a_poll_that_waits_gets_a_report_when_it_comes() -> None:
    """It is woken from the thread that adds the report, long before its time is over."""
    log = ReportLog(LIFE)
    assert log.attach(asyncio.get_running_loop())
    assert not log.attach(asyncio.get_running_loop())
    log.expect(log.last)
    began = time.monotonic()
    waiting = asyncio.create_task(log.wait(60))
    await asyncio.sleep(0)
    await asyncio.to_thread(log.append, [report("a")])
    await waiting
    assert time.monotonic() - began < 30
    assert log.since(log.first) == (report("a"),)


async def test_a_poll_without_a_report_ends_after_its_time() -> None:
    """It is answered without reports."""
    log = ReportLog(LIFE)
    log.attach(asyncio.get_running_loop())
    log.expect(log.last)
    await log.wait(0.01)
    assert log.since(log.first) == ()
