"""What is derived from a Protocol that declares calls between tiers."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any, Protocol

import pytest

from raygrid.leader.actor import LeaderActor
from raygrid.node.actor import NodeAgentActor
from raygrid.transport.calls import DeclaredCall, call, calls_of, direct_calls, exposes, link_to
from raygrid.transport.ports import AgentCalls, CacheCalls, LeaderCalls, NodeCalls
from tests.support.calls import CallRecorder, fake_of


class CounterCalls(Protocol):
    """The calls of a counter."""

    @call(5.0)
    async def add(self, number: int, /) -> int: ...

    @call(2.5, waits="wait_s", direct=False)
    async def reached(self, number: int, wait_s: float, /) -> bool: ...


class Counter:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    async def add(self, number: int) -> int:
        self.count += number
        return self.count

    async def reached(self, number: int, wait_s: float) -> bool:
        await asyncio.sleep(wait_s)
        return self.count >= number


async def test_a_link_hands_each_call_to_its_carrier() -> None:
    """The carrier gets the declaration and the arguments, and gives the answer."""
    carried: list[tuple[DeclaredCall, tuple[Any, ...]]] = []

    async def carry(declared: DeclaredCall, args: tuple[Any, ...]) -> Any:
        carried.append((declared, args))
        return 7

    link: CounterCalls = link_to(CounterCalls, carry)
    assert await link.add(3) == 7
    [(declared, args)] = carried
    assert (declared.name, declared.direct, args) == ("add", True, (3,))


def test_a_call_may_take_its_timeout_and_the_time_that_it_waits() -> None:
    """The time comes from the argument that the declaration names."""
    by_name = {each.name: each for each in calls_of(CounterCalls)}
    assert by_name["add"].timeout_s((3,)) == 5.0
    assert by_name["reached"].timeout_s((3, 10.0)) == 12.5


def test_a_direct_server_accepts_only_calls_that_are_declared_direct() -> None:
    assert direct_calls(CounterCalls) == {"add"}


async def test_an_actor_answers_every_call_of_its_protocol() -> None:
    """Its methods are coroutines, as Ray expects of an asynchronous actor, and its object carries them out."""

    @exposes(CounterCalls)
    class CounterActor:
        def __init__(self) -> None:
            self.calls: CounterCalls = Counter()

    made: Any = CounterActor()
    assert inspect.iscoroutinefunction(CounterActor.add)  # type: ignore[attr-defined]  # `exposes` adds it
    assert await made.add(2) == 2
    assert await made.reached(2, 0.0)


@pytest.mark.parametrize(("actor", "protocol"), [(LeaderActor, LeaderCalls), (NodeAgentActor, AgentCalls)])
def test_the_actors_of_the_grid_answer_every_declared_call(actor: type[Any], protocol: Any) -> None:
    assert all(inspect.iscoroutinefunction(getattr(actor, each.name)) for each in calls_of(protocol))


def test_an_agent_answers_leaders_and_parents() -> None:
    """Results may be large, and settings have no message of their own, so they never take a direct connection."""
    names = {each.name for each in calls_of(AgentCalls)}
    assert names == {each.name for protocol in (NodeCalls, CacheCalls) for each in calls_of(protocol)}
    assert names - direct_calls(AgentCalls) == {"results", "configure"}


async def test_a_fake_answers_as_its_object_does_and_records() -> None:
    """Calls that the object lacks do nothing."""

    class OnlyAdds:
        def add(self, number: int) -> int:
            return number

    recorder = CallRecorder(OnlyAdds())
    link: CounterCalls = link_to(CounterCalls, recorder)
    assert await link.add(3) == 3
    assert await link.reached(3, 0.0) is None
    assert recorder.names == ["add", "reached"]
    assert await fake_of(CounterCalls, Counter()).add(4) == 4


def test_a_method_without_a_declaration_is_refused() -> None:
    """Its timeout would be unknown."""

    class Undeclared(Protocol):
        async def add(self, number: int, /) -> int: ...

    with pytest.raises(TypeError, match=r"without the decorator `call`: .*Undeclared\.add"):
        calls_of(Undeclared)


def test_parameters_that_could_be_passed_by_name_are_refused() -> None:
    """Only the tuple of arguments is sent."""

    async def add(self: object, number: int) -> None: ...

    with pytest.raises(TypeError, match="must be positional-only"):
        call(1.0)(add)
