"""What a leader sends to one node, and in which order."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from raygrid.core.group.events import AttemptOrder, Event, HandOverEnded, NodeLost, NodeReported
from raygrid.errors import UnavailableError, UnreachableError
from raygrid.leader.definitions import DefinitionReader
from raygrid.leader.node_conversation import UNREACHABLE_S, NodeConversation
from raygrid.models import AttemptId, AttemptReport, Definition, NodeState, Outcome
from raygrid.settings.definition import define
from raygrid.settings.model import GridSettings, load_settings
from raygrid.settings.pricer import Pricer
from raygrid.store import JobStore
from raygrid.transport.ports import NodeReply
from tests.simulation.memory_store import MemoryStore
from tests.support.lone_agent import order


class Node:
    """Follows new settings once it got them often enough; records the calls that it gets."""

    def __init__(self, deaf_to: int = 0) -> None:
        self.deployed_at = 0.0
        self.deaf_to = deaf_to
        self.asked: list[str] = []
        self.changed = asyncio.Event()
        self.ended: tuple[AttemptReport, ...] = ()
        self.started: list[str] = []
        self.given: list[list[str]] = []
        self.got: list[Definition] = []
        self.lacks: tuple[str, ...] = ()
        self.incarnation = "life"
        self.asked_for: list[tuple[int, int]] = []
        self.polls = 0
        self.trouble: UnavailableError | None = None

    async def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        self.asked.append(f"start at {self.deployed_at:g}")
        self.started += [each.attempt.job_id for each in orders]
        self.given.append([each.digest for each in definitions])
        self.got += definitions

    async def stop(self, term: int, attempts: Sequence[AttemptId], recalled: Sequence[AttemptId] = ()) -> None:
        self.asked.append("stop")

    async def configure(self, term: int, settings: GridSettings) -> None:
        self.asked.append("configure")
        if self.deaf_to > 0:
            self.deaf_to -= 1
            raise UnavailableError("lost")
        self.deployed_at = settings.deployed_at

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        self.polls += 1
        await asyncio.sleep(0.01)
        self.asked_for.append((after, settled))
        if self.trouble is not None:
            raise self.trouble
        state = NodeState("n1", self.incarnation, 1, deployed_at=self.deployed_at, lacks=self.lacks)
        return NodeReply(state, self.ended if after < len(self.ended) else (), len(self.ended))


def conversation(
    node: Node,
    deployed_at: float,
    happened: Callable[[Event], None] = lambda _: None,
    clock: Callable[[], float] | None = None,
    *,
    reported: Callable[[Event], bool] = lambda _: True,
    is_held: Callable[[AttemptId], bool] = lambda _: True,
    store: JobStore | None = None,
    pricers: dict[str, Pricer] | None = None,
) -> NodeConversation:
    settings = load_settings().deployed(deployed_at)
    clock = clock or itertools.count().__next__

    async def take(reply: Event) -> bool:
        happened(reply)
        return reported(reply)

    settle, stale = (lambda action: action()), (lambda: None)
    definitions = DefinitionReader(store or MemoryStore(), pricers or {})
    return NodeConversation("n1", node, 1, happened, take, settle, stale, is_held, clock, settings, definitions)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def grows(count: Callable[[], int], by: int = 1) -> None:
    """Wait until a number has grown."""
    before = count()
    await until(lambda: count() >= before + by)


async def test_a_node_with_older_settings_gets_newer_ones_until_it_follows_them() -> None:
    """A call that is lost is made again, and none after the node has reported that it follows."""
    node = Node(deaf_to=2)
    talk = conversation(node, 5.0)
    talk.open()
    await until(lambda: node.deployed_at == 5.0)
    count = len(node.asked)
    await asyncio.sleep(0.1)
    assert set(node.asked) == {"configure"}
    assert count >= 3
    assert len(node.asked) <= count + 1, "one may have been under way when the node first reported it"
    await talk.close()


async def test_a_node_that_is_up_to_date_or_ahead_gets_no_settings() -> None:
    """Its stamp is the same, or that of a leader with newer settings."""
    for stamp in (5.0, 9.0):
        node = Node()
        node.deployed_at = stamp
        seen: list[Event] = []
        talk = conversation(node, 5.0, seen.append)
        talk.open()
        await until(lambda: len(seen) > 3)  # noqa: B023 - awaited before the next round
        assert node.asked == []
        await talk.close()


async def test_settings_go_before_the_orders_that_were_decided_by_them() -> None:
    """New settings and orders that gather meanwhile arrive in this order."""
    node = Node()
    talk = conversation(node, 0.0)
    talk.configure(load_settings().deployed(7.0))
    talk.start((order("a", ""),))
    talk.open()
    await until(lambda: len(node.asked) >= 2)
    assert node.asked[:2] == ["configure", "start at 7"]
    await talk.close()


async def test_reports_that_could_not_be_taken_in_come_again_and_are_not_settled() -> None:
    """While the leader cannot judge a reply the node keeps its reports, and sends them again."""
    node = Node()
    node.ended = (AttemptReport(AttemptId("a", 1), Outcome.EXITED, 0),)
    seen: list[Event] = []
    talk = conversation(node, 0.0, seen.append, reported=lambda _: len(seen) > 2)
    talk.open()
    await until(lambda: (1, 1) in node.asked_for)
    await talk.close()
    assert node.asked_for[: node.asked_for.index((1, 1))] == [(0, 0)] * 3
    assert [len(event.reports) for event in seen[:3] if isinstance(event, NodeReported)] == [1, 1, 1]


async def test_a_node_that_cannot_be_reached_is_lost_within_a_moment() -> None:
    """A broken link is reported once, long before silence would be, and the next answer makes it a node again."""
    node, seen = Node(), list[Event]()
    talk = conversation(node, 0.0, seen.append, time.monotonic)
    talk.open()
    await until(lambda: len(seen) > 0)
    node.trouble = UnreachableError("its process has ended")
    began = time.monotonic()
    await until(lambda: NodeLost("n1") in seen)
    assert UNREACHABLE_S <= time.monotonic() - began < 2
    polls = node.polls
    await until(lambda: node.polls > polls + 3)
    assert seen.count(NodeLost("n1")) == 1
    node.trouble = None
    await until(lambda: isinstance(seen[-1], NodeReported))
    node.trouble = UnreachableError("again")
    await until(lambda: seen.count(NodeLost("n1")) == 2)
    await talk.close()


async def test_a_link_that_recovers_at_once_costs_nothing() -> None:
    """Neither a connection that broke for a moment nor mere silence loses the node here."""
    node, seen = Node(), list[Event]()
    talk = conversation(node, 0.0, seen.append, time.monotonic)
    talk.open()
    for _ in range(4):
        node.trouble = UnreachableError("socket closed")
        await grows(lambda: node.polls, by=2)
        node.trouble = None
        await grows(lambda: len(seen))
    node.trouble = UnavailableError("did not answer")
    silent_since = time.monotonic()
    await until(lambda: time.monotonic() - silent_since > 2 * UNREACHABLE_S)
    assert NodeLost("n1") not in seen
    await talk.close()


async def test_an_order_that_was_given_up_before_it_was_sent_is_never_sent() -> None:
    """The other orders of its hand-over are sent, and only these are reported as arrived."""
    node, seen = Node(), list[Event]()
    talk = conversation(node, 0.0, seen.append, is_held=lambda attempt: attempt.job_id != "a")
    talk.start((order("a", ""), order("b", "")))
    talk.open()
    await until(lambda: HandOverEnded("n1", (AttemptId("b", 1),), arrived=True) in seen)
    await talk.close()
    assert node.started == ["b"]
    assert [event for event in seen if isinstance(event, HandOverEnded)] == [
        HandOverEnded("n1", (AttemptId("b", 1),), arrived=True)
    ]


async def test_orders_that_were_not_sent_because_of_an_unexpected_error_are_reported_as_not_arrived() -> None:
    """Otherwise the group would wait for them forever. Later orders are sent."""

    class Broken(MemoryStore):
        async def definitions(self, digests: Sequence[str]) -> dict[str, Definition]:
            raise TypeError("not foreseen")

    node, seen = Node(), list[Event]()
    talk = conversation(node, 0.0, seen.append, store=Broken())
    talk.start((running("a", "d1"),))
    talk.open()
    await until(lambda: HandOverEnded("n1", (AttemptId("a", 1),), arrived=False) in seen)
    talk.start((order("b", ""),))
    await until(lambda: node.started == ["b"])
    await talk.close()
    assert HandOverEnded("n1", (AttemptId("b", 1),), arrived=True) in seen


def running(job_id: str, definition: str) -> AttemptOrder:
    """An order for a job that was submitted with a definition."""
    plain = order(job_id, "")
    return replace(plain, spec=replace(plain.spec, definition=definition))


class CountingStore(MemoryStore):
    """Counts how often definitions are read, and is away for so many reads."""

    def __init__(self, away: int = 0) -> None:
        super().__init__()
        self.reads: list[list[str]] = []
        self.away = away

    async def definitions(self, digests: Sequence[str]) -> dict[str, Definition]:
        self.reads.append(list(digests))
        if len(self.reads) <= self.away:
            raise UnavailableError("the job store is away")
        return await super().definitions(digests)


async def kept(*digests: str, away: int = 0) -> CountingStore:
    store = CountingStore(away)
    await store.put_definitions([Definition(digest, "{}") for digest in digests])
    return store


async def test_a_definition_goes_once_with_the_first_orders_that_need_it() -> None:
    """Later orders come without; the store is read once; jobs without a definition need none."""
    node, store = Node(), await kept("d1", "d2")
    talk = conversation(node, 0.0, store=store)
    talk.open()
    await until(lambda: node.polls > 0)
    talk.start((running("a", "d1"), running("b", "d1"), running("c", "")))
    await until(lambda: len(node.given) == 1)
    talk.start((running("d", "d1"),))
    await until(lambda: len(node.given) == 2)
    talk.start((running("e", "d2"), running("f", "d1")))
    await until(lambda: len(node.given) == 3)
    await talk.close()
    assert node.given == [["d1"], [], ["d2"]]
    assert store.reads == [["d1"], ["d2"]]


async def test_another_life_of_a_node_is_sent_definitions_anew() -> None:
    """What an agent has is gone with its process."""
    node, store = Node(), await kept("d1")
    talk = conversation(node, 0.0, store=store)
    talk.open()
    await until(lambda: node.polls > 0)
    talk.start((running("a", "d1"),))
    await until(lambda: len(node.given) == 1)
    node.incarnation, polls = "next", node.polls
    await until(lambda: node.polls > polls + 2)
    talk.start((running("b", "d1"),))
    await until(lambda: len(node.given) == 2)
    await talk.close()
    assert node.given == [["d1"], ["d1"]]
    assert store.reads == [["d1"]]


async def test_a_node_that_lacks_a_definition_is_sent_it_without_any_order() -> None:
    """For example after an earlier leader handed the attempts over; a definition that arrived is not sent again."""
    node, store = Node(), await kept("d1")
    node.lacks = ("d1",)
    talk = conversation(node, 0.0, store=store)
    talk.open()
    await until(lambda: node.given != [])
    node.lacks, sent = (), len(node.given)
    polls = node.polls
    await until(lambda: node.polls > polls + 5)
    await talk.close()
    assert set(map(tuple, node.given)) == {("d1",)}
    assert len(node.given) <= sent + 1
    assert node.started == []


async def test_orders_go_although_the_store_cannot_be_asked() -> None:
    """The node waits for what it lacks, names it, and is sent it as soon as the store is back."""
    node, store = Node(), await kept("d1", away=2)
    node.lacks = ("d1",)
    talk = conversation(node, 0.0, store=store)
    talk.start((running("a", "d1"),))
    talk.open()
    await until(lambda: node.started == ["a"])
    await until(lambda: ["d1"] in node.given)
    await talk.close()
    assert len(store.reads) >= 3


async def test_a_lost_definition_is_sent_as_such_until_the_store_has_it_again() -> None:
    """Its order is sent with it, because the node may have the definition; each later order reads the store again."""
    node, store = Node(), await kept()
    talk = conversation(node, 0.0, store=store)
    talk.start((running("a", "d1"),))
    talk.open()
    await until(lambda: node.started == ["a"])
    assert [each.is_lost for each in node.got] == [True]
    await store.put_definitions([Definition("d1", "{}")])
    talk.start((running("b", "d1"),))
    await until(lambda: node.started == ["a", "b"])
    await talk.close()
    assert node.given == [["d1"], ["d1"]]
    assert [each.is_lost for each in node.got] == [True, False]


@pytest.mark.parametrize("env", [{}, {"FEED": "secret"}])
async def test_a_lost_definition_that_is_configured_is_stored_again(env: dict[str, str]) -> None:
    """The digest is made from what runs, so that an equal digest means an equal definition; its job runs."""
    pricer = Pricer(command=("sh",), env=env)
    definition = define("p", pricer)
    node, store = Node(), await kept()
    talk = conversation(node, 0.0, store=store, pricers={"p": pricer, "q": Pricer(command=("other",))})
    talk.start((running("a", definition.digest), running("b", "gone")))
    talk.open()
    await until(lambda: node.started == ["a", "b"])
    await talk.close()
    assert {each.digest: each.body for each in node.got} == {definition.digest: definition.body, "gone": ""}
    assert (await store.definitions([definition.digest]))[definition.digest] == definition


async def test_a_configured_definition_is_used_though_it_cannot_be_stored_again() -> None:
    """The job runs although the job store accepts no writes."""

    class Full(CountingStore):
        async def put_definitions(self, definitions: Sequence[Definition]) -> None:
            raise UnavailableError("the disk is full")

    pricer = Pricer(command=("sh",))
    node = Node()
    talk = conversation(node, 0.0, store=Full(), pricers={"p": pricer})
    talk.start((running("a", define("p", pricer).digest),))
    talk.open()
    await until(lambda: node.started == ["a"])
    await talk.close()
    assert node.got == [define("p", pricer)]


async def test_a_definition_that_the_store_does_not_have_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log names it, however often the node asks for it."""
    node, store = Node(), await kept()
    node.lacks = ("gone",)
    talk = conversation(node, 0.0, store=store)
    talk.open()
    await until(lambda: len(store.reads) > 2)
    await talk.close()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "the job store has no definition gone; jobs that run it will fail"
    ]
