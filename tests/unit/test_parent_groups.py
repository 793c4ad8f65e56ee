"""What a parent knows of the groups between two reports of their leaders."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from raygrid.core.lease import Lease
from raygrid.core.result_sources import NodePlace
from raygrid.errors import BusyError, ProcessEndedError, RaygridError, UnavailableError, UnreachableError
from raygrid.models import BlobSlice, GroupCapacity, JobSpec, NodeView, QueuedJob
from raygrid.parent.groups import Groups
from raygrid.parent.waiters import Waiters
from raygrid.settings.model import load_settings
from raygrid.store import Unfinished
from raygrid.transport.ports import LeaderReply
from tests.support.calls import FakeGroups


class QuietLeader:
    """A leader that answers as the test lets it, and takes pokes when the test lets it."""

    def __init__(self, capacity: GroupCapacity, term: int = 0) -> None:
        self.term = term
        self.words: asyncio.Queue[GroupCapacity | Exception] = asyncio.Queue()
        self.words.put_nowait(capacity)
        self.takes = asyncio.Event()
        self.taken: list[str] = []
        self.stood = asyncio.Event()

    async def enqueue(self, jobs: Sequence[QueuedJob]) -> None:
        await self.takes.wait()
        self.taken += [job.spec.job_id for job in jobs]

    async def cancel(self, job_ids: Sequence[str]) -> None:
        raise UnavailableError("not now")

    async def stand(self) -> None:
        self.stood.set()

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        word = await self.words.get()
        if isinstance(word, Exception):
            raise word
        return LeaderReply("e", 0, (), False, word, term=self.term, leader=f"leader in term {self.term}")


class Story:
    """Two groups, `a` with four slots and `b` with two."""

    def __init__(self, max_queued: int = 10) -> None:
        views = [NodeView(f"a-{number}", "a", 2, 0, "ok", address=f"agent:a-{number}") for number in (1, 2)]
        self.a = GroupCapacity("a", 4, 0, 0, tuple(views))
        self.b = GroupCapacity("b", 2, 0, 0, (NodeView("b-1", "b", 2, 0, "ok", address="agent:b-1"),))
        self.leaders = {"a": QuietLeader(self.a), "b": QuietLeader(self.b)}
        settings = load_settings(routing={"max_queued": max_queued})
        self.groups = Groups(FakeGroups({name: [each] for name, each in self.leaders.items()}), settings, Waiters())

    def queued(self) -> dict[str, int]:
        return {group.group_id: group.queued for group in self.groups.capacities()}


async def until(story: Story, expected: dict[str, int]) -> None:
    for _ in range(500):
        if story.queued() == expected:
            return
        await asyncio.sleep(0.005)
    assert story.queued() == expected


@pytest.fixture
async def story() -> AsyncIterator[Story]:
    story = Story()
    await story.groups.open()
    await until(story, {"a": 0, "b": 0})
    yield story
    for leader in story.leaders.values():
        leader.takes.set()
    await story.groups.close()


def spec(job_id: str) -> JobSpec:
    return JobSpec(job_id, "p", "1", BlobSlice("", 0, 1, "d"))


async def test_a_sent_job_counts_until_the_leader_has_reported_it(story: Story) -> None:
    """A job counts from the choice on, while its poke is pending, and until the first report after that."""
    assert story.groups.routing.choose(None, None) == "a"
    assert story.queued() == {"a": 1, "b": 0}
    story.leaders["a"].words.put_nowait(story.a)  # it cannot know of the job yet
    await asyncio.sleep(0.02)
    assert story.queued() == {"a": 1, "b": 0}
    story.leaders["a"].takes.set()
    story.groups.announce("a", [QueuedJob(spec("j"))])
    while not story.leaders["a"].taken:
        await asyncio.sleep(0.005)
    assert story.queued() == {"a": 1, "b": 0}
    story.leaders["a"].words.put_nowait(story.a)  # it knows, and has started it already
    await until(story, {"a": 0, "b": 0})


async def test_a_leader_is_followed_whatever_it_answered(story: Story) -> None:
    """An unexpected error is logged, and asking goes on."""
    story.leaders["a"].words.put_nowait(KeyError("a bug"))
    story.leaders["a"].words.put_nowait(replace(story.a, queued=3))
    await until(story, {"a": 3, "b": 0})


async def test_a_promise_that_is_not_kept_is_taken_back(story: Story) -> None:
    """A submit that was refused, or attached to a job that was there, leaves no trace, and nothing falls below zero."""
    story.groups.routing.choose(None, None)
    story.groups.routing.release("a")
    assert story.queued() == {"a": 0, "b": 0}
    story.groups.routing.release("a", 5)
    story.groups.routing.release("gone")
    assert story.queued() == {"a": 0, "b": 0}


async def test_every_choice_uses_the_latest_knowledge(story: Story) -> None:
    """Promises, their release, batches, lost groups and new reports all count with the very next job."""
    assert [story.groups.routing.choose(None, None) for _ in range(5)] == ["a", "a", "a", "b", "a"]
    story.groups.routing.release("b")
    assert story.groups.routing.choose(None, None) == "b"
    story.groups.routing.choose_many([Unfinished("j")])  # b's last slot
    assert story.queued() == {"a": 4, "b": 2}
    assert [story.groups.routing.choose(None, None) for _ in range(2)] == ["a", "b"]  # the shortest queue per slot
    story.groups.known.lost = frozenset({"a"})
    assert story.groups.routing.choose(None, None) == "b"
    story.groups.known.lost = frozenset()
    story.leaders["b"].words.put_nowait(replace(story.b, slots=40))
    while story.groups.capacities()[1].slots != 40:
        await asyncio.sleep(0.005)
    assert story.queued() == {"a": 5, "b": 4}
    assert story.groups.routing.choose(None, None) == "b"


async def test_parts_of_a_batch_see_each_other(story: Story) -> None:
    """What the first part takes is no longer free for the second, and all of it is promised."""
    chosen = dict(story.groups.routing.choose_many([*[Unfinished("j")] * 3, *[Unfinished("j", site="x")] * 3]))
    assert Counter(chosen[index] for index in range(3)) == {"a": 3}
    assert Counter(chosen[index] for index in range(3, 6)) == {"a": 1, "b": 2}
    assert story.queued() == {"a": 4, "b": 2}


async def test_a_batch_that_does_not_fit_promises_nothing(story: Story) -> None:
    """When the second part finds the queues full, the first leaves no trace."""
    with pytest.raises(BusyError, match="every group's queue is full"):
        story.groups.routing.choose_many([*[Unfinished("j")] * 15, *[Unfinished("j", site="x")] * 6])
    assert story.queued() == {"a": 0, "b": 0}
    chosen = story.groups.routing.choose_many([Unfinished("j")] * 20)
    assert Counter(group_id for _, group_id in chosen) == {"a": 10, "b": 10}
    with pytest.raises(BusyError, match="every group's queue is full"):
        story.groups.routing.choose(None, None)


async def test_a_node_is_found_by_the_latest_report(story: Story) -> None:
    """By name, in any group; one that has left is not found any more."""
    assert story.groups.place_of("a-2") == NodePlace("a", "agent:a-2")
    assert story.groups.place_of("b-1") == NodePlace("b", "agent:b-1")
    assert story.groups.place_of("c-1") is None
    story.leaders["b"].words.put_nowait(GroupCapacity("b", 0, 0, 7))
    await until(story, {"a": 0, "b": 7})
    assert story.groups.place_of("b-1") is None


@pytest.mark.parametrize(
    ("word", "hastens"),
    [(ProcessEndedError("gone"), True), (UnreachableError("broken"), False), (UnavailableError("silent"), False)],
)
async def test_a_successor_need_not_wait_for_the_lease_of_a_leader_whose_process_has_ended(
    word: RaygridError, hastens: bool
) -> None:
    """Its lease is given back and the other candidate leads; mere silence may be a slow network."""
    capacity = GroupCapacity("a", 4, 0, 0)
    leader, other = QuietLeader(capacity, term=3), QuietLeader(capacity)
    other.words.get_nowait()
    groups = Groups(FakeGroups({"a": [leader, other]}), load_settings(), Waiters())
    given_back: list[Lease] = []

    async def give_back(lease: Lease) -> None:
        given_back.append(lease)

    groups.polls.give_back = give_back
    await groups.open()
    try:
        while not groups.capacities():
            await asyncio.sleep(0.005)
        leader.words.put_nowait(word)
        leader.words.put_nowait(replace(capacity, queued=1))  # a leader that is asked again has answered before
        if hastens:
            async with asyncio.timeout(10):
                await other.stood.wait()
        while groups.capacities()[0].queued != 1:
            await asyncio.sleep(0.005)
        leases = [(each.group_id, each.holder, each.term) for each in given_back]
        assert leases == [("a", "leader in term 3", 3)] * hastens
        assert other.stood.is_set() is hastens
        assert not leader.stood.is_set()
    finally:
        await groups.close()


async def test_a_candidate_without_others_keeps_its_lease() -> None:
    """No other candidate waits for it, and jobs of a group without a leader would be moved the sooner."""
    leader = QuietLeader(GroupCapacity("a", 4, 0, 0), term=3)
    groups = Groups(FakeGroups({"a": [leader]}), load_settings(), Waiters())

    async def give_back(lease: Lease) -> None:
        raise AssertionError(lease)

    groups.polls.give_back = give_back
    await groups.open()
    try:
        while not groups.capacities():
            await asyncio.sleep(0.005)
        leader.words.put_nowait(ProcessEndedError("gone"))
        leader.words.put_nowait(GroupCapacity("a", 4, 0, 1))
        while groups.capacities()[0].queued != 1:
            await asyncio.sleep(0.005)
    finally:
        await groups.close()
