"""The parts of the simulation: virtual time, processes that freeze and die, and the network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import TypeVar

import pytest

from raygrid.errors import ConflictError, UnavailableError
from tests.simulation.clock import STARTS_AT, Process, StuckError, VirtualLoop
from tests.simulation.network import Network, Part, Weather
from tests.simulation.trace import Trace

pytestmark = pytest.mark.computing


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    loop = VirtualLoop()
    yield loop
    loop.close()


Answer = TypeVar("Answer")


def finish(loop: VirtualLoop, work: Awaitable[Answer]) -> Answer:
    return loop.run_until_complete(work)


# --- time -----------------------------------------------------------------------------------------------------------


def test_an_hour_of_virtual_time_takes_no_real_time(loop: VirtualLoop) -> None:
    """Timers go off in their order."""
    woken: list[int] = []

    async def sleeper(hours: int) -> None:
        await asyncio.sleep(3600 * hours)
        woken.append(hours)

    async def all_of_them() -> None:
        await asyncio.gather(sleeper(3), sleeper(1), sleeper(2))

    started = time.monotonic()
    finish(loop, all_of_them())
    assert woken == [1, 2, 3]
    assert loop.time() == STARTS_AT + 3 * 3600
    assert time.monotonic() - started < 5


def test_a_simulation_without_further_events_ends_with_an_error(loop: VirtualLoop) -> None:
    """Waiting for what never comes is an error, not a hang."""
    with pytest.raises(StuckError, match="nothing is left"):
        finish(loop, asyncio.Event().wait())


def test_work_for_threads_is_done_at_once(loop: VirtualLoop) -> None:
    """`to_thread` gives the answer, or the error, without a thread."""

    async def ask() -> int:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        return await asyncio.to_thread(lambda: 42)

    assert finish(loop, ask()) == 42


# --- processes ------------------------------------------------------------------------------------------------------


def test_a_frozen_process_does_nothing_while_others_go_on(loop: VirtualLoop) -> None:
    """Its tasks, and those that they began, stand still, and go on where they were."""
    process, other = Process(loop, "frozen"), Process(loop, "other")
    ticks: dict[str, list[float]] = {"frozen": [], "other": []}

    async def tick(name: str) -> None:
        while True:
            await asyncio.sleep(1)
            ticks[name].append(loop.time() - STARTS_AT)

    async def parent() -> None:
        await asyncio.create_task(tick("frozen"))

    tasks = [process.spawn(parent()), other.spawn(tick("other"))]
    loop.call_later(2.5, process.freeze)
    loop.call_later(5.5, process.thaw)
    finish(loop, asyncio.sleep(7.2))
    assert ticks == {"frozen": [1, 2, 5.5, 6.5], "other": [1, 2, 3, 4, 5, 6, 7]}
    for task in tasks:
        task.cancel()
    finish(loop, asyncio.sleep(0.1))


def test_a_killed_process_cleans_up_nothing(loop: VirtualLoop) -> None:
    """Not even a `finally` runs, until the simulation is over."""
    process = Process(loop, "killed")
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            cleaned.append("up")

    task = process.spawn(work())
    loop.call_later(1, process.kill)
    loop.call_later(2, process.thaw)
    finish(loop, asyncio.sleep(20))
    assert cleaned == []
    process.bury()
    finish(loop, task)
    assert cleaned == ["up"]


# --- the network ----------------------------------------------------------------------------------------------------


class Counter:
    """Counts, and fails on request."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    async def add_slowly(self) -> int:
        await asyncio.sleep(1)
        return self.add()

    def refuse(self) -> None:
        raise ConflictError("no")


class Wire:
    """A network with one counter at its end."""

    def __init__(self, loop: VirtualLoop, seed: int = 1) -> None:
        self.network = Network(loop, Random(seed), Trace(loop))
        self.counter = Counter()
        self.part: Part[Counter] = Part("counter", "there")
        self.part.process, self.part.target = Process(loop, "counter"), self.counter

    async def outcomes(self, calls: int) -> list[str]:
        async def one() -> str:
            try:
                await self.network.call("here", self.part, "add", Counter.add, 5)
            except UnavailableError:
                return "unknown"
            return "answered"

        return await asyncio.gather(*(one() for _ in range(calls)))


def test_a_call_brings_the_answer_or_the_error_of_the_callee(loop: VirtualLoop) -> None:
    """Answers, awaited answers and the grid's own errors come through, after some time."""
    wire = Wire(loop)

    async def talk() -> None:
        assert await wire.network.call("here", wire.part, "add", Counter.add) == 1
        assert await wire.network.call("here", wire.part, "slow", Counter.add_slowly) == 2
        with pytest.raises(ConflictError):
            await wire.network.call("here", wire.part, "refuse", Counter.refuse)
        with pytest.raises(UnavailableError, match="ZeroDivisionError"):
            await wire.network.call("here", wire.part, "break", lambda _: 1 // 0)

    finish(loop, talk())
    assert STARTS_AT + 1 < loop.time() < STARTS_AT + 1.1


def test_a_lost_call_looks_the_same_whether_it_took_effect_or_not(loop: VirtualLoop) -> None:
    """Some of the calls without an answer were carried out, some were not."""
    wire = Wire(loop)
    wire.network.weather = Weather(loss=0.5)
    outcomes = finish(loop, wire.outcomes(200))
    answered, unknown = outcomes.count("answered"), outcomes.count("unknown")
    assert answered > 60
    assert unknown > 60
    assert answered + 20 < wire.counter.count < 180


def test_calls_are_doubled_and_overtake_one_another(loop: VirtualLoop) -> None:
    """A doubled call takes effect twice; late ones arrive after later ones."""
    wire = Wire(loop)
    wire.network.weather = Weather(doubled=0.3, late=0.3, late_s=2)
    order: list[int] = []

    def note(number: int) -> Callable[[object], None]:
        return lambda _: order.append(number)

    async def talk() -> None:
        await asyncio.gather(*(wire.network.call("here", wire.part, "note", note(n)) for n in range(50)))
        await asyncio.sleep(5)

    finish(loop, talk())
    assert len(order) > 55
    assert order != sorted(order)


def test_a_cut_is_silent_and_a_dead_process_answers_at_once(loop: VirtualLoop) -> None:
    """A caller waits for its timeout behind a cut, but gets an error soon if no process listens."""
    wire = Wire(loop)
    wire.network.cut("cut", frozenset({"here"}), frozenset({"there"}))
    assert finish(loop, wire.outcomes(1)) == ["unknown"]
    assert loop.time() == pytest.approx(STARTS_AT + 5)
    wire.network.mend()
    assert finish(loop, wire.outcomes(1)) == ["answered"]
    wire.part.process = None
    before = loop.time()
    assert finish(loop, wire.outcomes(1)) == ["unknown"]
    assert loop.time() - before < 0.1


def test_a_call_to_a_frozen_process_takes_effect_when_it_thaws(loop: VirtualLoop) -> None:
    """Its caller has given it up long before."""
    wire = Wire(loop)
    process = wire.part.process
    assert process is not None
    process.freeze()
    assert finish(loop, wire.outcomes(1)) == ["unknown"]
    assert wire.counter.count == 0
    process.thaw()
    finish(loop, asyncio.sleep(0.1))
    assert wire.counter.count == 1
