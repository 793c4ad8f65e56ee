"""What every job store guarantees for jobs of a group without a leader: they are found, moved, or ended."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.core.lease import Lease
from raygrid.errors import StaleTermError
from raygrid.models import JobState, JobUpdate
from raygrid.store import NO_HOLDER, JobStore, Unfinished
from tests.contract.test_job_store import AT, done, lead, new, one, running, store

__all__ = ["store"]


async def lost(store: JobStore, group: str = "rack-a") -> Lease:
    """A group whose leader is gone: its lease has run out, and no other candidate has taken it."""
    lease = await lead(store, group)
    await store.release_lease(lease)
    return lease


async def started(store: JobStore, lease: Lease, *updates: JobUpdate) -> None:
    await store.record("rack-a", lease.term, updates)


# --- finding --------------------------------------------------------------------------------------------------


async def test_unfinished_jobs_have_what_routing_needs(store: JobStore) -> None:
    """Running ones first, then the queued ones in the order in which they should run; none that ended, or another's."""
    await store.insert(
        [
            new("low"),
            replace(new("high", priority=5), affinity="desk", site="tokyo"),
            new("runs"),
            new("over"),
            new("foreign", group="rack-b"),
        ]
    )
    lease = await lead(store)
    await started(store, lease, running("runs"), done("over"))
    found = await store.unfinished("rack-a", 10)
    assert found == [Unfinished("runs"), Unfinished("high", "desk", "tokyo"), Unfinished("low")]
    assert [each.job_id for each in await store.unfinished("rack-a", 2)] == ["runs", "high"]
    assert [each.job_id for each in await store.unfinished("rack-a", 10, running=False)] == ["high", "low"]


async def test_jobs_to_be_cancelled_can_be_selected(store: JobStore) -> None:
    """With `to_cancel` only jobs that a client has asked to cancel are found."""
    await store.insert([new("stays"), new("goes")])
    await store.request_cancel(["goes"])
    assert await store.unfinished("rack-a", 10, to_cancel=True) == [Unfinished("goes")]


async def test_unfinished_jobs_are_counted_by_group(store: JobStore) -> None:
    """Queued and running ones count; groups without any, and those not asked for, are left out."""
    await store.insert([new("a"), new("b"), new("c"), new("d", group="rack-b")])
    lease = await lead(store)
    await started(store, lease, running("a"), done("b"))
    assert await store.count_unfinished(["rack-a", "rack-c"]) == {"rack-a": 2}


# --- moving ---------------------------------------------------------------------------------------------------


async def test_a_queued_job_moves_and_keeps_its_data(store: JobStore) -> None:
    """It is the other group's with a new revision; its place in the order, attempts and failures stay."""
    await store.insert([new("first"), new("second")])
    lease = await lead(store)
    again = JobUpdate("first", JobState.QUEUED, AttemptCounts(2, failures=1), None, AT)
    await started(store, lease, running("first", 2), again)
    before = await one(store, "first")
    moved = await store.move("rack-a", {"second": "rack-b", "first": "rack-b"})
    assert {job.spec.job_id for job in moved["rack-b"]} == {"first", "second"}
    assert [(job.spec.job_id, job.counts.started, job.counts.failures) for job in await store.queued("rack-b", 9)] == [
        ("first", 2, 1),
        ("second", 0, 0),
    ]
    after = await one(store, "first")
    assert after == replace(before, group_id="rack-b", revision=after.revision)
    assert after.revision > before.revision
    assert await store.queued("rack-a", 9) == []


async def test_a_move_returns_the_jobs_as_the_new_leader_queues_them(store: JobStore) -> None:
    """The jobs given back are those that the new group's queue holds, inputs included."""
    await store.insert([new("a"), new("b"), new("c")])
    await store.request_cancel(["b"])
    moved = await store.move("rack-a", {"a": "rack-b", "b": "rack-b", "c": "rack-c"})
    assert moved == {"rack-b": await store.queued("rack-b", 9), "rack-c": await store.queued("rack-c", 9)}
    assert [job.cancel_requested for job in moved["rack-b"]] == [False, True]


async def test_a_running_job_is_left_alone_while_its_group_may_be_led(store: JobStore) -> None:
    """Without `unled` only queued jobs move, whatever the state of the lease is."""
    await store.insert([new("runs")])
    lease = await lead(store)
    await started(store, lease, running("runs"))
    await store.release_lease(lease)
    assert await store.move("rack-a", {"runs": "rack-b"}) == {}
    assert (await one(store, "runs")).group_id == "rack-a"


async def test_a_running_job_of_a_lost_group_is_queued_elsewhere(store: JobStore) -> None:
    """With `unled` it is queued in the other group, without a node, and has its attempts as they were."""
    await store.insert([new("runs")])
    lease = await lead(store)
    await started(store, lease, running("runs", 1))
    await store.release_lease(lease)
    moved = await store.move("rack-a", {"runs": "rack-b"}, unled=True)
    job = await one(store, "runs")
    assert [(each.counts.started, each.running, each.node_id) for each in moved["rack-b"]] == [(1, False, None)]
    assert (job.group_id, job.state, job.node_id, job.attempts) == ("rack-b", JobState.QUEUED, None, 1)


async def test_no_job_is_taken_from_a_group_that_is_led(store: JobStore) -> None:
    """With `unled` nothing moves while the lease lives, and its term stays: a leader may have come back meanwhile."""
    await store.insert([new("a")])
    lease = await lead(store)
    assert await store.move("rack-a", {"a": "rack-b"}, unled=True) == {}
    assert (await one(store, "a")).group_id == "rack-a"
    await started(store, lease, running("a"))


async def test_jobs_that_ended_or_are_elsewhere_do_not_move(store: JobStore) -> None:
    """A job moves from the group named, if it has not ended; all others stay and are not in the answer."""
    await store.insert([new("over"), new("foreign", group="rack-c"), new("stays")])
    lease = await lead(store)
    await started(store, lease, done("over"))
    await store.release_lease(lease)
    before = await store.get(["over", "foreign", "stays"])
    to = {"over": "rack-b", "foreign": "rack-b", "unheard-of": "rack-b", "stays": "rack-a"}
    assert await store.move("rack-a", to, unled=True) == {}
    assert await store.get(["over", "foreign", "stays"]) == before


async def test_a_moved_job_is_news_in_its_batch(store: JobStore) -> None:
    """A reader of the batch gets the job again, at a cursor above the one before."""
    await store.insert([new("a"), new("b")], "batch")
    seen = max(change.cursor for change in await store.changed("batch", 0, 10))
    await store.move("rack-a", {"a": "rack-b"})
    [change] = await store.changed("batch", seen, 10)
    assert (change.job.job_id, change.job.group_id) == ("a", "rack-b")


async def test_many_jobs_move_at_once(store: JobStore) -> None:
    """More jobs than fit into one statement move in one call."""
    names = [f"j{number:04}" for number in range(1_200)]
    await store.insert([new(name) for name in names])
    moved = await store.move("rack-a", dict.fromkeys(names, "rack-b"))
    assert sorted(job.spec.job_id for job in moved["rack-b"]) == names
    assert await store.count_queued("rack-b") == 1_200


# --- leaders that come back -----------------------------------------------------------------------------------


async def test_a_late_leader_of_a_lost_group_can_write_nothing(store: JobStore) -> None:
    """Its term is over once jobs were taken away, so it cannot write to the jobs that stayed either."""
    await store.insert([new("moved"), new("stayed")])
    lease = await lost(store)
    await store.move("rack-a", {"moved": "rack-b"}, unled=True)
    before = await store.get(["moved", "stayed"])
    for job_id in ("moved", "stayed"):
        with pytest.raises(StaleTermError):
            await store.record("rack-a", lease.term, [done(job_id)])
    assert await store.get(["moved", "stayed"]) == before


async def test_a_late_leader_can_write_nothing_even_when_the_job_comes_back(store: JobStore) -> None:
    """A job that went away and came back is led in a new term only: an old attempt's result never becomes visible."""
    await store.insert([new("a")])
    old = await lost(store)
    await store.move("rack-a", {"a": "rack-b"}, unled=True)
    await store.move("rack-b", {"a": "rack-a"})
    with pytest.raises(StaleTermError):
        await store.record("rack-a", old.term, [done("a", key="results/late")])
    fresh = await lead(store, holder="another")
    await started(store, fresh, done("a", 2, key="results/good"))
    job = await one(store, "a")
    assert job.result is not None
    assert (job.result.key, job.group_id) == ("results/good", "rack-a")


async def test_a_living_leader_cannot_change_a_moved_job(store: JobStore) -> None:
    """If only queued jobs were moved the leader's term goes on, and its update of a moved job changes nothing."""
    await store.insert([new("moved"), new("own")])
    lease = await lead(store)
    await store.move("rack-a", {"moved": "rack-b"})
    before = await one(store, "moved")
    await started(store, lease, done("moved"), done("own"))
    assert await one(store, "moved") == before
    assert (await one(store, "own")).state is JobState.DONE


async def test_a_lost_group_can_be_led_again_at_once(store: JobStore) -> None:
    """Its lease keeps its end and has no holder; the next holder gets a newer term."""
    await store.insert([new("a"), new("b")])
    lease = await lost(store)
    since = (await store.leases())["rack-a"].lease.expires_at
    for job_id in ("a", "b"):  # the term rises once, however often jobs are taken
        await store.move("rack-a", {job_id: "rack-b"}, unled=True)
    state = (await store.leases())["rack-a"]
    assert (state.lease.holder, state.lease.term, state.lease.expires_at) == (NO_HOLDER, lease.term + 1, since)
    assert state.left_s <= 0
    assert (await lead(store)).term == lease.term + 2


# --- cancelling -----------------------------------------------------------------------------------------------


async def test_a_cancel_request_is_carried_out_without_a_leader(store: JobStore) -> None:
    """A queued job of a group without a leader ends as cancelled if that was requested; others stay."""
    await store.insert([new("goes"), new("stays"), new("foreign", group="rack-b")], "batch")
    lease = await lost(store)
    await store.request_cancel(["goes", "foreign"])
    seen = max(change.cursor for change in await store.changed("batch", 0, 10))
    assert await store.cancel_unled("rack-a") == ["goes"]
    job = await one(store, "goes")
    assert (job.state, job.reason) == (JobState.CANCELLED, "cancelled")
    assert job.ended_at is not None
    assert [change.job.job_id for change in await store.changed("batch", seen, 10)] == ["goes"]
    assert {(await one(store, each)).state for each in ("stays", "foreign")} == {JobState.QUEUED}
    with pytest.raises(StaleTermError):
        await store.record("rack-a", lease.term, [done("goes")])


async def test_a_running_job_is_cancelled_without_a_leader_only_when_it_counts_as_lost(store: JobStore) -> None:
    """Its node may still work for a leader that comes; with `running` it ends."""
    await store.insert([new("runs")])
    lease = await lead(store)
    await started(store, lease, running("runs"))
    await store.release_lease(lease)
    await store.request_cancel(["runs"])
    assert await store.cancel_unled("rack-a") == []
    assert await store.cancel_unled("rack-a", running=True) == ["runs"]
    assert (await one(store, "runs")).state is JobState.CANCELLED


async def test_jobs_to_end_can_be_named(store: JobStore) -> None:
    """Only those named end, at most so many."""
    await store.insert([new("a"), new("b"), new("c")])
    await lost(store)
    await store.request_cancel(["a", "b", "c"])
    assert await store.cancel_unled("rack-a", ["b", "unheard-of"]) == ["b"]
    assert len(await store.cancel_unled("rack-a", limit=1) or []) == 1


async def test_a_living_leader_cancels_by_itself(store: JobStore) -> None:
    """The store ends no job of a group that has a leader."""
    await store.insert([new("a")])
    lease = await lead(store)
    await store.request_cancel(["a"])
    assert await store.cancel_unled("rack-a", running=True) is None
    await started(store, lease, running("a"))
