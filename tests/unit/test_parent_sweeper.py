"""The sweeper over a job store in memory and a clock of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.core.routing.lost_groups import LostGroupTimeouts
from raygrid.errors import GroupRefusedError, UnavailableError
from raygrid.models import (
    AttemptId,
    AttemptReport,
    BlobSlice,
    GroupCapacity,
    JobSpec,
    JobState,
    JobUpdate,
    NewJob,
    NodeView,
    Outcome,
    QueuedJob,
)
from raygrid.parent.groups import Groups
from raygrid.parent.sweeper import SWEEPER, Sweeper
from raygrid.parent.waiters import Waiters
from raygrid.settings.model import load_settings
from raygrid.transport.ports import LeaderReply
from tests.simulation.memory_store import MemoryStore
from tests.support.calls import FakeGroups

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


class PlainLeader:
    """A leader that takes or refuses the jobs that it gets."""

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.reported: list[str] = []
        self.attempts: dict[str, int] = {}
        self.forgot: list[str] = []
        self.cancelled: list[str] = []
        self.refuses = False
        self.deaf = False

    async def enqueue(self, jobs: Sequence[QueuedJob]) -> None:
        for job in jobs:
            self.reported.append(job.spec.job_id)
            self.attempts[job.spec.job_id] = job.counts.started
        if self.refuses:
            raise GroupRefusedError("no node")

    async def forget(self, job_ids: Sequence[str]) -> None:
        self.forgot += job_ids

    async def cancel(self, job_ids: Sequence[str]) -> None:
        if self.deaf:
            raise UnavailableError("not now")
        self.cancelled += job_ids

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        load = GroupCapacity(self.group_id, 4, 0, 0, (NodeView(f"{self.group_id}-1", self.group_id, 4, 0, "ok"),))
        if epoch:
            await asyncio.Event().wait()
        return LeaderReply("e", 0, (), False, load, term=1)


class Story:
    """Three groups, each led; time passes only when the test lets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        self.store = MemoryStore(lambda: BEGIN + timedelta(seconds=self.now))
        self.leaders = {name: PlainLeader(name) for name in ("a", "b", "c")}
        self.waiters = Waiters()
        fakes = FakeGroups({name: [leader] for name, leader in self.leaders.items()})
        self.groups = Groups(fakes, load_settings(), self.waiters)
        self.sweeper = self.another()
        self._monkeypatch = monkeypatch

    def another(self) -> Sweeper:
        return Sweeper(self.store, self.groups, self.waiters, LostGroupTimeouts(2.0, 7.0, 30.0))

    async def open(self) -> None:
        await self.groups.polls.refresh()
        while len(self.groups.capacities()) < 3:
            await asyncio.sleep(0)
        self._monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now)
        for known in self.groups.known:
            known.answered_at = float("inf")  # their last report counts as just now, however late it gets

    async def lead(self, *groups: str) -> None:
        for group in groups:
            assert await self.store.acquire_lease(group, f"leader of {group}", 3.0)

    async def passes(self, seconds: float, *led: str, sweepers: Sequence[Sweeper] = ()) -> None:
        """Let time pass, with a look every half a second; some groups stay led."""
        for _ in range(int(seconds / 0.5)):
            self.now += 0.5
            await self.lead(*led)
            for each in sweepers or (self.sweeper,):
                await self.round(each)

    async def round(self, sweeper: Sweeper) -> None:
        await sweeper._look()
        for group_id in sweeper.lost:
            await sweeper._sweep(group_id, unled=True)
        for group_id in sweeper._idle:
            await sweeper._sweep(group_id, unled=False)
        for _ in range(10):
            await asyncio.sleep(0)  # pokes

    async def insert(self, *names: str, group: str = "a") -> None:
        specs = [JobSpec(name, "p", "1", BlobSlice("", 0, 1, "d")) for name in names]
        await self.store.insert([NewJob(spec, group, "f") for spec in specs])

    async def where(self, *names: str) -> list[str]:
        found = await self.store.get(names)
        return [found[name].group_id for name in names]


@pytest.fixture
async def story(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Story]:
    story = Story(monkeypatch)
    await story.open()
    yield story
    monkeypatch.undo()
    await story.groups.close()


def running(job_id: str, number: int) -> JobUpdate:
    return JobUpdate(job_id, JobState.RUNNING, AttemptCounts(number, failures=number - 1), "a-1", BEGIN)


async def test_jobs_of_a_lost_group_are_dealt_to_the_others(story: Story) -> None:
    """Queued and running ones go to groups that live, whose leaders get them at once with their attempts."""
    await story.passes(1, "a", "b", "c")
    await story.insert("j1", "j2", "j3", "j4")
    await story.store.record("a", 1, [running("j1", 2)])
    await story.passes(4.5, "b", "c")
    assert await story.where("j1", "j2", "j3", "j4") == ["a"] * 4
    await story.passes(0.5, "b", "c")
    assert sorted(await story.where("j1", "j2", "j3", "j4")) == ["b", "b", "c", "c"]
    reported = story.leaders["b"].reported + story.leaders["c"].reported
    assert sorted(reported) == ["j1", "j2", "j3", "j4"]
    assert (story.leaders["b"].attempts | story.leaders["c"].attempts)["j1"] == 2
    assert list(story.sweeper.lost) == ["a"]


async def test_nothing_moves_without_a_group_that_can_take_it(story: Story) -> None:
    """With all groups lost the jobs stay where they are, and move when one is back."""
    await story.passes(1, "a", "b", "c")
    await story.insert("j1")
    await story.passes(10)
    assert await story.where("j1") == ["a"]
    await story.passes(3, "c")
    assert await story.where("j1") == ["c"]


async def test_the_start_of_a_grid_moves_nothing(story: Story) -> None:
    """A grid that was killed begins with leases that are over, and one rack after the other: each keeps its jobs."""
    await story.lead("a", "b", "c")
    await story.insert("j1", "j2")
    story.now += 600  # off
    await story.passes(20, "b", "c")
    assert await story.where("j1", "j2") == ["a", "a"]
    await story.passes(5, "a", "b", "c")
    assert await story.where("j1", "j2") == ["a", "a"]


async def test_one_parent_sweeps_and_the_next_one_goes_on_at_once(story: Story) -> None:
    """The holder of the lease sweeps; when it dies together with a rack, another has watched all along."""
    other = story.another()
    await story.passes(2, "a", "b", "c", sweepers=(story.sweeper, other))
    assert (story.sweeper._sweeps, other._sweeps) == (True, False)
    await story.insert("j1")
    await story.passes(5, "b", "c", sweepers=(other,))
    assert other._sweeps
    assert await story.where("j1") != ["a"]


async def test_the_lease_of_the_sweeper_is_no_group(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long there is no sweep, no group is lost by that name."""
    await story.passes(1, "a", "b", "c")
    assert (await story.store.leases())[SWEEPER].left_s > 0

    async def not_held(self: Sweeper, state: object) -> bool:
        return False

    monkeypatch.setattr(Sweeper, "_hold_lease", not_held)
    await story.passes(40, "a", "b", "c")
    assert (await story.store.leases())[SWEEPER].left_s < 0
    assert story.sweeper.lost == {}


async def test_many_jobs_move_in_pages(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs a lost group has, each transaction moves a bounded number."""
    monkeypatch.setattr("raygrid.parent.sweeper.PAGE", 10)
    names = [f"j{number:02}" for number in range(35)]
    await story.passes(1, "a", "b", "c")
    await story.insert(*names)
    await story.passes(6, "b", "c")
    assert "a" not in await story.where(*names)
    assert sorted(story.leaders["b"].reported + story.leaders["c"].reported) == names


async def test_a_refused_job_goes_on_until_a_group_takes_it(story: Story) -> None:
    """Each group that refuses is skipped; if all refuse, the job stays in the last one."""
    await story.sweeper.open()
    try:
        await story.insert("j1")
        story.leaders["a"].refuses = story.leaders["b"].refuses = True
        story.groups.announce("a", await story.store.queued("a", 9))
        await until(lambda: "j1" in story.leaders["c"].reported)
        assert await story.where("j1") == ["c"]
        await until(lambda: story.leaders["a"].forgot == ["j1"])
        story.leaders["c"].refuses = True
        await story.insert("j2", group="c")
        story.groups.announce("c", [held for held in await story.store.queued("c", 9) if held.spec.job_id == "j2"])
        await until(lambda: "j2" in story.leaders["c"].reported)
        for _ in range(300):
            await asyncio.sleep(0)
        assert await story.where("j2") == ["c"]
        assert story.leaders["a"].reported == ["j1"]
    finally:
        await story.sweeper.close()


async def until(condition: Callable[[], object]) -> None:
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0)
    assert condition()


async def test_a_cancel_request_is_carried_out_when_the_lease_has_run_out(story: Story) -> None:
    """While the lease lives the leader gets it again; without one a queued job is cancelled, a running one waits."""
    await story.lead("a", "b", "c")
    await story.insert("j1", "j2")
    await story.store.record("a", 1, [running("j2", 1)])
    story.leaders["a"].deaf = True
    await story.store.request_cancel(["j1", "j2"])
    story.sweeper.cancel("a", ["j1", "j2"])
    await story.sweeper._cancel("a")
    assert story.sweeper._to_cancel == {"a": {"j1", "j2"}}
    story.now += 3.5
    await story.sweeper._cancel("a")
    found = await story.store.get(["j1", "j2"])
    assert (found["j1"].state, found["j2"].state) == (JobState.CANCELLED, JobState.RUNNING)
    assert story.sweeper._to_cancel == {}


async def test_a_cancel_request_reaches_a_leader_that_was_unreachable_at_first(story: Story) -> None:
    """It is sent again."""
    await story.lead("a")
    await story.insert("j1")
    await story.store.request_cancel(["j1"])
    story.sweeper.cancel("a", ["j1"])
    await story.sweeper._cancel("a")
    assert story.leaders["a"].cancelled == ["j1"]


async def test_jobs_to_be_cancelled_end_when_their_group_is_lost(story: Story) -> None:
    """Even if no other group could take anything."""
    await story.passes(1, "a", "b", "c")
    await story.insert("j1", "j2")
    await story.store.record("a", 1, [running("j1", 1)])
    await story.store.request_cancel(["j1"])
    await story.passes(8)
    found = await story.store.get(["j1", "j2"])
    assert (found["j1"].state, found["j2"].state) == (JobState.CANCELLED, JobState.QUEUED)


async def test_jobs_are_not_given_to_a_lost_group_while_others_live(story: Story) -> None:
    """Its leader may have reported a moment ago."""
    await story.passes(1, "a", "b", "c")
    await story.passes(6, "b", "c")
    chosen = {story.groups.routing.choose(f"key-{number}", None) for number in range(30)}
    assert chosen == {"b", "c"}


async def test_a_late_result_of_a_moved_job_is_never_visible(story: Story) -> None:
    """Reports of the old leader and the old nodes change nothing; the new leader's result is the one."""
    await story.passes(1, "a", "b", "c")
    await story.insert("j1")
    await story.passes(6, "b", "c")
    [group] = await story.where("j1")
    late = AttemptReport(AttemptId("j1", 1), Outcome.EXITED, 0, result=BlobSlice("results/late", 0, 1, "d"))
    await story.lead("a")  # the leader there now, in whatever term
    term = (await story.store.leases())["a"].lease.term
    await story.store.record("a", term, [JobUpdate("j1", JobState.DONE, AttemptCounts(1), "a-1", BEGIN, report=late)])
    job = (await story.store.get(["j1"]))["j1"]
    assert (job.state, job.result, job.group_id) == (JobState.QUEUED, None, group)
