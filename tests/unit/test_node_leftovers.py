"""An agent reports unfinished attempts of its earlier lives until they are settled; suspects run one at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, AttemptReport, Outcome
from raygrid.node.agent import NodeAgent
from raygrid.node.leftovers import Leftovers
from raygrid.node.suspect_turns import SuspectTurns
from raygrid.system.proc import life_of
from tests.support.lone_agent import lone_agent, order, reports_of, wait_until


def directories(root: Path, life: str, *names: str) -> None:
    for name in names:
        (root / "jobs" / life / name).mkdir(parents=True)


def found(root: Path) -> list[AttemptReport]:
    return Leftovers(root, "node-1").find(root / "jobs" / "mine")


def test_names_of_directories_are_attempts(tmp_path: Path) -> None:
    """Whatever a job's id contains, its directory names the attempt; other directories are ignored."""
    directories(tmp_path, "a", "j.1", "a.b.2.13", ".x.4", "@warm.1", "no-number", "j.1x", "j.", ".7")
    (tmp_path / "jobs" / "a" / "file.1").write_text("")
    reports = found(tmp_path)
    assert {report.attempt for report in reports} == {
        AttemptId("j", 1),
        AttemptId("a.b.2", 13),
        AttemptId(".x", 4),
    }
    assert {report.outcome for report in reports} == {Outcome.LOST}
    assert "node-1" in (reports[0].message or "")


def test_lives_are_reported_in_their_order_until_they_are_settled(tmp_path: Path) -> None:
    """Each life's attempts have one end; the next life finds them again, until they are settled."""
    directories(tmp_path, "a", "j.1", "k.1")
    os.utime(tmp_path / "jobs" / "a", (1_000, 1_000))
    assert len(found(tmp_path)) == 2
    directories(tmp_path, "b", "j.2")
    os.utime(tmp_path / "jobs" / "b", (2_000, 2_000))
    reports = found(tmp_path)
    assert [report.attempt.job_id for report in reports[2:]] == ["j"]
    assert len({report.ended_at for report in reports[:2]}) == 1
    assert reports[0].ended_at != reports[2].ended_at
    (tmp_path / "jobs" / "a" / "j.1").rmdir()
    assert found(tmp_path) == reports, "their directories are gone by then"
    leftovers = Leftovers(tmp_path, "node-1")
    leftovers.reported(7)
    leftovers.settle(7)
    assert {report.attempt for report in found(tmp_path)} == {AttemptId("k", 1), AttemptId("j", 2)}


def test_attempts_in_sandboxes_are_found_with_those_of_their_life(tmp_path: Path) -> None:
    """A life has one end, that of its last attempt, wherever its attempts ran."""
    life, mine = "0123456789abcdef", "fedcba9876543210"
    directories(tmp_path, life, "off.1")
    for name in ("1/in-a-sandbox.1", "1/tmp/0", "22/other.3", "22/@warm.1", "no-sandbox/x.1"):
        (tmp_path / "box" / life[:8] / name).mkdir(parents=True)
    (tmp_path / "box" / mine[:8] / "1" / "own.1").mkdir(parents=True)
    (tmp_path / "jobs" / mine).mkdir()
    for path in (tmp_path / "jobs" / life, *(tmp_path / "box" / life[:8]).iterdir(), tmp_path / "box" / life[:8]):
        os.utime(path, (1_000, 1_000))
    os.utime(tmp_path / "box" / life[:8] / "22", (2_000, 2_000))
    leftovers = Leftovers(tmp_path, "node-1")
    places = tmp_path / "jobs" / mine, tmp_path / "box" / mine[:8]
    reports = leftovers.find(*places)
    assert {report.attempt for report in reports} == {
        AttemptId("off", 1),
        AttemptId("in-a-sandbox", 1),
        AttemptId("other", 3),
    }
    assert {report.ended_at.timestamp() for report in reports if report.ended_at} == {2_000}
    assert leftovers.find(*places) == reports, "a life that is recorded is not found again"


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"life": 1}]', '[{"life": "x", "ended_at": "y", "attempts": []}]'])
def test_a_damaged_file_is_ignored(tmp_path: Path, text: str) -> None:
    """A file that a power cut left damaged does not keep the agent from starting."""
    (tmp_path / "unfinished").write_text(text)
    directories(tmp_path, "a", "j.1")
    assert [report.attempt for report in found(tmp_path)] == [AttemptId("j", 1)]


async def test_everything_killed_at_once_is_reported_by_the_next_life(tmp_path: Path) -> None:
    """Agent, reaper and pricers die together; the next agent reports the attempts, and removes their directories."""
    script = f"touch {tmp_path}/began; sleep 100"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.lone_agent", str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(script)
    process.stdin.close()
    wait_until((tmp_path / "began").exists)
    below = children(process.pid)
    assert len(below) >= 2, "the reaper and the pricer"
    for pid in (process.pid, *below):
        os.kill(pid, signal.SIGSTOP)  # or one would notice the end of another
    for pid in (process.pid, *below):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not any(map(life_of, below)))
    agent = lone_agent(tmp_path)
    agent.open()
    try:
        reports = await reports_of(agent, 1)
        assert reports[AttemptId("job-0", 1)].outcome is Outcome.LOST
        assert not list((tmp_path / "root" / "jobs").glob("*/job-0.1"))
        await settles(agent)
    finally:
        agent.close()
    assert not (tmp_path / "root" / "unfinished").exists()


async def test_an_orderly_end_leaves_nothing_to_report(tmp_path: Path) -> None:
    """An agent that is closed while a pricer runs is no reason to suspect the job."""
    agent = lone_agent(tmp_path)
    agent.open()
    agent.start(1, [order("j", f"touch {tmp_path}/began; sleep 100")])
    wait_until((tmp_path / "began").exists)
    await asyncio.to_thread(agent.close)
    again = lone_agent(tmp_path)
    again.open()
    try:
        assert (await again.reports(1, 0, 0, 0)).reports == ()
    finally:
        again.close()


async def test_one_agent_of_a_machine_at_a_time_runs_a_suspect_apart(tmp_path: Path) -> None:
    """The second suspect waits in its slot, other jobs do not, and it can be cancelled meanwhile."""
    agents = [lone_agent(tmp_path / name) for name in ("one", "two")]
    for agent in agents:
        agent._suspect_turns = SuspectTurns(tmp_path, agent._watchdog)
        agent.open()
    first, second = agents
    try:
        first.start(1, [apart(f"touch {tmp_path}/first; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done")])
        wait_until((tmp_path / "first").exists)
        second.start(1, [apart(f"touch {tmp_path}/second"), order("other", "true")])
        assert (await reports_of(second, 1)).keys() == {AttemptId("other", 1)}
        assert not (tmp_path / "second").exists()
        (tmp_path / "go").touch()
        assert (await reports_of(second, 2))[AttemptId("apart", 1)].exit_code == 0
        assert (tmp_path / "second").exists()
    finally:
        for agent in agents:
            agent.close()


async def test_a_suspect_that_waits_for_its_turn_can_be_cancelled(tmp_path: Path) -> None:
    """It ends as cancelled, and never ran."""
    agent = lone_agent(tmp_path)
    agent._suspect_turns = SuspectTurns(tmp_path, agent._watchdog)
    agent.open()
    release = threading.Event()
    with agent._suspect_turns.turn(release.is_set) as is_mine:
        assert is_mine
        try:
            agent.start(1, [apart(f"touch {tmp_path}/ran")])
            wait_until(lambda: agent._watchdog.find(AttemptId("apart", 1)))
            agent.stop(1, [AttemptId("apart", 1)])
            report = (await reports_of(agent, 1))[AttemptId("apart", 1)]
            assert (report.outcome, report.started_at) == (Outcome.CANCELLED, None)
            assert not (tmp_path / "ran").exists()
        finally:
            agent.close()


def apart(script: str) -> AttemptOrder:
    return replace(order("apart", script), apart=True)


async def settles(agent: NodeAgent) -> None:
    last = (await agent.reports(1, 0, 0, 0)).last
    assert (await agent.reports(1, last, last, 0)).reports == ()


def children(pid: int) -> list[int]:
    table = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid,ppid"], text=True).splitlines()[1:]]
    parents = {int(child): int(parent) for child, parent in table}
    below = [child for child, parent in parents.items() if parent == pid]
    return below + [grandchild for child in below for grandchild in children(child)]
