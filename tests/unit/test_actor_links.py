"""How Ray's view of a cluster becomes groups and nodes, and Ray's errors become raygrid's."""

from __future__ import annotations

import asyncio
import functools
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]  # made at run time

from raygrid.errors import BusyError, StaleTermError, UnavailableError, UnreachableError
from raygrid.transport.actor_link import ActorLink
from raygrid.transport.actors import ask_ray
from raygrid.transport.groups import candidates_of
from raygrid.transport.ports import CALL_TIMEOUT_S, NodeCalls
from raygrid.transport.racks import groups_of, home_of, node_names


def ray_node(node_id: str, name: str, **resources: float) -> dict[str, Any]:
    return {"NodeID": node_id, "NodeName": name, "Resources": {"CPU": 2.0, **resources}}


def test_groups_are_the_resources_with_the_prefix() -> None:
    """Every resource with the prefix that some node carries is a group, once."""
    nodes = [
        ray_node("1", "a1", **{"rack-a": 1}),
        ray_node("2", "a2", **{"rack-a": 1}),
        ray_node("3", "b1", **{"rack-b": 1}),
        ray_node("4", "head"),
    ]
    assert groups_of(nodes, "rack-") == ["rack-a", "rack-b"]


def test_nodes_with_the_same_name_get_different_names() -> None:
    """Two nodes with the same name get different names, always the same ones."""
    nodes = [ray_node("bbbbbbbbb", "host"), ray_node("aaaaaaaaa", "host"), ray_node("c", "10.0.0.1:99")]
    names = node_names(nodes)
    assert names == {"host": "aaaaaaaaa", "host-bbbbbb": "bbbbbbbbb", "10.0.0.1_99": "c"}
    assert node_names(nodes[::-1]) == names


class Actor:
    """An actor's handle for which Ray reports the given state."""

    def __init__(self, state: str = "ALIVE") -> None:
        self.state = state

    def _get_local_state(self) -> int:
        return int(ActorTableData.ActorState.Value(self.state))


async def answer(value: object) -> object:
    if isinstance(value, BaseException):
        raise value
    return value


async def test_a_call_that_does_not_answer_is_unavailable() -> None:
    """A call without an answer in time is an error that names the timeout, and is not waited for any longer."""
    link = ActorLink(NodeCalls, "node a1", Actor())
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(UnavailableError, match=r"node a1 did not answer within 0\.01 s"):
        await link._ask(never, timeout_s=0.01)
    assert not link.is_dead
    assert CALL_TIMEOUT_S < 10


async def test_questions_that_ray_never_answers_take_no_thread_from_others() -> None:
    """While the head is cut off every question hangs; other work still gets a thread."""
    answered = threading.Event()
    asked: list[int] = []

    def question(number: int) -> None:
        asked.append(number)
        answered.wait(30)

    try:
        for number in range(40):
            with pytest.raises(UnavailableError, match="did not answer"):
                await ask_ray(functools.partial(question, number), 0.05)
        async with asyncio.timeout(10):
            assert await asyncio.to_thread(lambda: "at once") == "at once"
    finally:
        answered.set()
    assert len(asked) <= 4  # the others were given up before their turn, and are never asked


async def test_an_actors_own_error_comes_through() -> None:
    """An error that the callee raised on purpose reaches the caller as it was."""
    import ray.exceptions

    link = ActorLink(NodeCalls, "node a1", Actor())
    cause = StaleTermError("term 1 is over")
    wrapped = ray.exceptions.RayTaskError("start", "traceback", cause)  # type: ignore[no-untyped-call]  # Ray has no types
    with pytest.raises(StaleTermError, match="term 1 is over"):
        await link._ask(answer(wrapped))


async def test_a_dead_actor_stays_dead() -> None:
    """After Ray reports an actor as dead, its link reports it too, and is replaced by a new one."""
    import ray.exceptions

    link = ActorLink(NodeCalls, "node a1", Actor())
    with pytest.raises(BusyError):
        await link._ask(answer(ray.exceptions.ActorDiedError()))
    assert link.is_dead


@pytest.mark.parametrize(("state", "is_dead"), [("RESTARTING", False), ("DEAD", True)])
async def test_a_call_to_a_process_that_has_ended_fails_at_once(state: str, is_dead: bool) -> None:
    """Ray fails a pending call long after it knows of the death; the link does not wait for it."""
    actor = Actor()
    link = ActorLink(NodeCalls, "node a1", actor)
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.15, setattr, actor, "state", state)
    async with asyncio.timeout(20):
        with pytest.raises(UnreachableError, match="node a1 failed: its process has ended"):
            await link._ask(never, timeout_s=30)
    assert link.is_dead == is_dead


@pytest.mark.parametrize("state", ["RESTARTING", "DEAD"])
async def test_a_call_during_a_restart_is_not_sent(state: str) -> None:
    """Ray would let it fail a second or two later, though the process is back; the next call reaches it at once."""
    sent: list[str] = []

    class Restarting(Actor):
        def __getattr__(self, name: str) -> Any:
            if name not in ("direct_address", "reports"):
                raise AttributeError(name)
            sent.append(name)
            return SimpleNamespace(remote=lambda *_: answer(None))

    actor = Restarting(state)
    link = ActorLink(NodeCalls, "node a1", actor)
    with pytest.raises(UnreachableError, match="node a1 failed: its process has ended"):
        await link.calls.reports(1, 0, 0, 0.0)
    assert sent == []
    if state == "RESTARTING":
        actor.state = "ALIVE"
        await link.calls.reports(1, 0, 0, 0.0)
        assert "reports" in sent
    link.close()


async def test_a_broken_connection_is_distinguished_from_silence() -> None:
    """Ray's report that an actor is unavailable or dead is more than a missing answer."""
    import ray.exceptions

    link = ActorLink(NodeCalls, "node a1", Actor())
    broken = ray.exceptions.ActorUnavailableError("socket closed", b"x" * 16)
    with pytest.raises(UnreachableError):
        await link._ask(answer(broken))
    assert not link.is_dead
    with pytest.raises(UnavailableError) as silent:
        await link._ask(asyncio.get_running_loop().create_future(), timeout_s=0.01)
    assert not isinstance(silent.value, UnreachableError)


def test_a_parent_knows_its_rack() -> None:
    """The rack is a resource of its own node; on the head, or on a node of two racks, it has none."""
    nodes = [
        ray_node("1", "a1", **{"rack-a": 1}),
        ray_node("2", "both", **{"rack-a": 1, "rack-b": 1}),
        ray_node("3", "head"),
    ]
    assert [home_of(nodes, node_id, "rack-") for node_id in ("1", "2", "3", "4")] == ["rack-a", None, None, None]


RACK = [ray_node(str(number), f"a{number}", **{"rack-a": 1}) for number in (1, 2, 3)]


def test_a_group_gets_two_candidates_on_different_nodes() -> None:
    """Candidates run on the first two nodes by name, in whatever order Ray lists them; a group of one node gets one."""
    expected = ["leader:rack-a:1", "leader:rack-a:2"]
    assert candidates_of(RACK, "rack-a", set()) == expected
    assert candidates_of(RACK[::-1], "rack-a", set()) == expected
    assert candidates_of([RACK[2], ray_node("9", "b", **{"rack-b": 1})], "rack-a", set()) == ["leader:rack-a:3"]


def test_existing_candidates_stay() -> None:
    """One on another node is kept rather than replaced; a lost one is replaced."""
    assert candidates_of(RACK, "rack-a", {"leader:rack-a:3"}) == ["leader:rack-a:1", "leader:rack-a:3"]
    everywhere = {f"leader:rack-a:{number}" for number in (1, 2, 3)}
    assert candidates_of(RACK, "rack-a", everywhere) == sorted(everywhere)
    assert candidates_of(RACK[1:], "rack-a", {"leader:rack-a:1", "leader:rack-a:2"}) == [
        "leader:rack-a:2",
        "leader:rack-a:3",
    ]
