"""A node agent that gets newer settings while it works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raygrid.errors import StaleTermError
from raygrid.models import AttemptId, Outcome
from raygrid.node.agent import NodeAgent
from raygrid.settings.pricer import Pricer
from raygrid.settings.sections import Node
from tests.support.lone_agent import SHELL, lone_agent, order, reports_of, wait_until

FAILING = {"shell": Pricer(command=("sh", "-c", "exit 7"))}


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[NodeAgent]:
    node = lone_agent(tmp_path, slots=2)
    node.open()
    yield node
    await asyncio.to_thread(node.close)


def gated(directory: Path, name: str) -> str:
    return f"touch {directory}/{name}.runs; while [ ! -e {directory}/gate ]; do sleep 0.02; done"


def running(directory: Path) -> int:
    return len(list(directory.glob("*.runs")))


async def test_what_runs_keeps_its_pricer_and_what_starts_gets_the_new_one(agent: NodeAgent, tmp_path: Path) -> None:
    """The attempt that runs keeps its command; the next one runs the new command."""
    agent.start(1, [order("before", gated(tmp_path, "before"))])
    wait_until(lambda: running(tmp_path) == 1)
    agent.configure(1, FAILING, Node(slots=2), 5.0)
    agent.start(1, [order("after", "exit 0")])
    assert (await reports_of(agent, 1))[AttemptId("after", 1)].exit_code == 7
    (tmp_path / "gate").touch()
    assert (await reports_of(agent, 2))[AttemptId("before", 1)].exit_code == 0


async def test_older_settings_change_nothing(agent: NodeAgent) -> None:
    """An older or equal stamp is ignored; an older leader is refused."""
    agent.configure(2, FAILING, Node(slots=3), 5.0)
    agent.configure(2, SHELL, Node(slots=1), 4.0)
    agent.configure(2, SHELL, Node(slots=1), 5.0)
    state = (await agent.reports(2, 0, 0, 0)).state
    assert (state.slots, state.deployed_at) == (3, 5.0)
    with pytest.raises(StaleTermError):
        agent.configure(1, SHELL, Node(slots=1), 9.0)
    assert (await agent.reports(2, 0, 0, 0)).state.deployed_at == 5.0


async def test_a_poll_that_waits_is_answered_with_the_new_stamp(agent: NodeAgent) -> None:
    """The leader need not wait for the end of a long poll to hand out jobs again."""
    poll = asyncio.create_task(agent.reports(1, 0, 0, 30))
    await asyncio.sleep(0)
    agent.configure(1, FAILING, Node(slots=2), 5.0)
    async with asyncio.timeout(20):
        reply = await poll
    assert (reply.state.deployed_at, reply.reports) == (5.0, ())


async def test_more_slots_start_waiting_attempts(agent: NodeAgent, tmp_path: Path) -> None:
    """Attempts that waited for a slot get the new ones."""
    agent.start(1, [order(f"j{n}", gated(tmp_path, f"j{n}")) for n in range(5)])
    wait_until(lambda: running(tmp_path) == 2)
    agent.configure(1, SHELL, Node(slots=4), 5.0)
    wait_until(lambda: running(tmp_path) == 4)
    state = (await agent.reports(1, 0, 0, 0)).state
    assert (state.slots, len(state.running), state.waiting) == (4, 5, 1)
    (tmp_path / "gate").touch()
    assert {each.outcome for each in (await reports_of(agent, 5)).values()} == {Outcome.EXITED}


async def test_fewer_slots_let_what_runs_finish_and_hold_from_then_on(tmp_path: Path) -> None:
    """With four running and one slot left nothing is killed, and later attempts run one by one."""
    agent = lone_agent(tmp_path, slots=4)
    agent.open()
    try:
        log = tmp_path / "log"
        agent.start(1, [order(f"j{n}", gated(tmp_path, f"j{n}")) for n in range(4)])
        wait_until(lambda: running(tmp_path) == 4)
        agent.configure(1, SHELL, Node(slots=1), 5.0)
        script = f"echo + >> {log}; sleep 0.05; echo - >> {log}"
        agent.start(1, [order(f"k{n}", script) for n in range(6)])
        (tmp_path / "gate").touch()
        ended = await reports_of(agent, 10)
        assert {each.exit_code for each in ended.values()} == {0}
        assert log.read_text().split() == ["+", "-"] * 6
        assert len(agent._slots._threads) == 2  # one of them for a result while the next pricer runs
    finally:
        await asyncio.to_thread(agent.close)


async def test_fewer_slots_on_an_idle_node(agent: NodeAgent) -> None:
    """Threads that wait for work end, and those that stay do all of it."""
    agent.configure(1, SHELL, Node(slots=1), 5.0)
    wait_until(lambda: len(agent._slots._threads) == 2)
    agent.start(1, [order(f"j{n}", "exit 0") for n in range(3)])
    assert len(await reports_of(agent, 3)) == 3
