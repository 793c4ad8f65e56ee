"""Outcomes of limits: a job that was ended for a limit, and a warm pricer that gave no answer."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from raygrid.models import AttemptId, Outcome
from raygrid.node.limits.running import Running
from raygrid.system.processes import has_exited
from tests.support.http import unzip
from tests.support.lone_agent import lone_agent, order, reports_of, wait_until
from tests.support.small_grid import SmallGrid
from tests.support.warm import SPEAKS_RAW, WarmNode

MB = 1024**2
CLEAN = "trap 'echo half > prices.csv; exit 0' TERM; touch {ready}; while :; do sleep 0.02; done"


async def test_a_time_limit_is_a_timeout_even_if_the_pricer_shuts_down_cleanly(tmp_path: Path) -> None:
    """A pricer that exits 0 on SIGTERM has failed as `timeout`; what it wrote is in the result of the failure."""
    async with SmallGrid(tmp_path) as grid:
        answer = await grid.submit("half", CLEAN.format(ready=tmp_path / "ready"), timeout_s="0.5")
        assert (answer.status_code, answer.json()["reason"]) == (422, "timeout")
        assert "wall-time limit of 0.5 s" in answer.json()["detail"]
        status = await grid.status("half")
        assert (status["state"], status["reason"], status["attempts"]) == ("failed", "timeout", 1)
        kept = unzip(await grid.http.get("/result/half?even_if=failed"))
        assert kept["prices.csv"] == b"half\n"


async def test_a_cancelled_pricer_that_exits_0_is_cancelled(tmp_path: Path) -> None:
    """Exit code 0 after the request to end does not make a cancelled attempt a success."""
    agent, ready = lone_agent(tmp_path), tmp_path / "ready"
    agent.open()
    try:
        agent.start(1, [order("job", CLEAN.format(ready=ready))])
        wait_until(ready.exists)
        agent.stop(1, [AttemptId("job", 1)])
        report = (await reports_of(agent, 1))[AttemptId("job", 1)]
        assert (report.outcome, report.exit_code) == (Outcome.CANCELLED, 0)
    finally:
        agent.close()


def running(pid: int, started: float | None = None) -> Running:
    return Running(AttemptId("job", 1), time.monotonic() if started is None else started, 60.0, None, MB, (), pid=pid)


@pytest.mark.parametrize("limit", [Outcome.OUTPUT_LIMIT, Outcome.MEMORY_LIMIT])
def test_a_job_past_its_time_limit_is_a_timeout_whichever_limit_is_noticed_first(limit: Outcome) -> None:
    """The reason does not depend on when the watchdog checks the time limit; a cancellation keeps its own reason."""
    now = time.monotonic()
    late = running(0, now - 61)
    late.stop(limit, "too much", 0)
    assert (late.killed_for, late.message) == (Outcome.TIMEOUT, "killed at its wall-time limit of 60 s")
    failed = running(0, now - 61)
    failed.fail(limit, "too much")
    assert failed.killed_for is Outcome.TIMEOUT
    in_time = running(0)
    in_time.stop(limit, "too much", 0)
    assert (in_time.killed_for, in_time.message) == (limit, "too much")
    cancelled = running(0, now - 61)
    cancelled.stop(Outcome.CANCELLED, "cancelled", 0)
    assert cancelled.killed_for is Outcome.CANCELLED


def test_a_pricer_that_had_ended_before_the_signal_keeps_its_own_end() -> None:
    """A stop that comes after the process has ended changes nothing; one that comes before counts."""
    with subprocess.Popen(["true"], start_new_session=True) as done:
        wait_until(lambda: has_exited(done.pid))
        ended = running(done.pid)
        ended.stop(Outcome.TIMEOUT, "late", 1.0)
        assert ended.killed_for is None
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as sleeps:
        runs = running(sleeps.pid)
        runs.stop(Outcome.TIMEOUT, "in time", 1.0)
        assert runs.killed_for is Outcome.TIMEOUT


def test_a_pricer_that_is_stopped_while_it_starts_gets_sigterm_and_its_grace(tmp_path: Path) -> None:
    """It can run before its pid is noted: a stop in between takes effect when the pid is noted, with SIGTERM first."""
    ready = tmp_path / "ready"
    with subprocess.Popen(["sh", "-c", CLEAN.format(ready=ready)], start_new_session=True, cwd=tmp_path) as starts:
        wait_until(ready.exists)
        stopped = running(0)
        stopped.stop(Outcome.OUTPUT_LIMIT, "too much", 60)
        stopped.spawned(starts.pid)
        assert starts.wait(timeout=30) == 0
        assert (tmp_path / "prices.csv").read_text() == "half\n"
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as starts:
        stopped = running(0)
        stopped.stop(Outcome.OUTPUT_LIMIT, "too much", 0)
        stopped.spawned(starts.pid)
        assert starts.wait(timeout=30) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("program", "outcome", "exit_code", "fragment"),
    [
        ("read -r line; exit 0", Outcome.BAD_OUTPUT, 0, "ended without an answer (exit code 0)"),
        ("read -r line; exec >&-; exit 0", Outcome.BAD_OUTPUT, 0, "ended without an answer (exit code 0)"),
        ("read -r line; exec >&-; sleep 1000", Outcome.BAD_OUTPUT, None, "ended without an answer"),
        ("read -r line; exit 5", Outcome.EXITED, 5, "exited with code 5; the warm pricer ended without an answer"),
        ("read -r line; kill -SEGV $$", Outcome.SIGNAL, None, "(SIGSEGV); the warm pricer ended without an answer"),
        ("exit 0", Outcome.BAD_OUTPUT, 0, "ended without an answer (exit code 0)"),
    ],
)
async def test_a_warm_pricer_that_ends_without_an_answer_has_failed(
    tmp_path: Path, program: str, outcome: Outcome, exit_code: int | None, fragment: str
) -> None:
    """Neither exit code 0 nor a closed stdout is an answer; a failing exit code and a signal are kept."""
    with WarmNode(tmp_path, "", command=("sh", "-c", program.replace("{", "{{").replace("}", "}}"))) as node:
        report = (await node.run("job", "")).report
    assert (report.outcome, report.exit_code) == (outcome, exit_code), report
    assert fragment in (report.message or "")


async def test_a_warm_pricer_that_answers_once_and_exits_0_in_the_next_job_has_failed(tmp_path: Path) -> None:
    """The job that was read and not answered fails; the one before it is done."""
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        assert (await node.run("one", "answer()")).report.exit_code == 0
        report = (await node.run("two", "os._exit(0)")).report
        assert (report.outcome, report.exit_code) == (Outcome.BAD_OUTPUT, 0)
        assert (await node.run("three", "answer()")).report.outcome is Outcome.EXITED


async def test_an_answer_after_the_time_limit_is_a_timeout(tmp_path: Path) -> None:
    """A warm pricer that answers 0 when it is ended has been cut short all the same."""
    script = (
        "import signal\ndef ends(*_):\n    answer()\nsignal.signal(signal.SIGTERM, ends)\nwhile True: time.sleep(0.02)"
    )
    with WarmNode(tmp_path, SPEAKS_RAW) as node:
        report = (await node.run("late", script, timeout_s=0.5)).report
        assert report.outcome is Outcome.TIMEOUT


@pytest.mark.parametrize("limit", ["memory", "output"])
async def test_any_limit_is_named_whatever_the_exit_code(tmp_path: Path, limit: str) -> None:
    """An agent that ended a pricer for a limit reports that limit, even for exit code 0."""
    agent = lone_agent(tmp_path)
    agent.open()
    outcome = Outcome.MEMORY_LIMIT if limit == "memory" else Outcome.OUTPUT_LIMIT
    ready = tmp_path / "ready"
    try:
        agent.start(1, [order("job", CLEAN.format(ready=ready))])
        wait_until(ready.exists)
        found = agent._watchdog.find(AttemptId("job", 1))
        assert found is not None
        found.stop(outcome, "too much", 5.0)
        report = (await reports_of(agent, 1))[AttemptId("job", 1)]
        assert (report.outcome, report.exit_code, report.message) == (outcome, 0, "too much")
    finally:
        agent.close()
