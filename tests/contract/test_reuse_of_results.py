"""What every job store guarantees about results that later jobs take over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.models import AttemptId, AttemptReport, BlobSlice, JobState, JobUpdate, NewJob, Outcome
from raygrid.store import JobStore
from tests.contract.test_job_store import AT, ids, lead, new, one, store

__all__ = ["store"]

SLICE = BlobSlice("results/1", 100, 9, "r")


def report(job_id: str, content: str | None, *, code: int = 0, result: BlobSlice | None = SLICE) -> AttemptReport:
    return AttemptReport(AttemptId(job_id, 1), Outcome.EXITED, code, result=result, content=content)


def done(job_id: str, content: str | None = "c", result: BlobSlice = SLICE, at: timedelta = timedelta()) -> JobUpdate:
    return JobUpdate(
        job_id, JobState.DONE, AttemptCounts(1), "n1", AT + at, report=report(job_id, content, result=result)
    )


def taking(job_id: str, source: str, **options: Any) -> NewJob:
    return replace(new(job_id, **options), source=source)


async def ended(store: JobStore, updates: Sequence[JobUpdate]) -> None:
    """Jobs that a leader has recorded as ended."""
    await store.insert([new(update.job_id) for update in updates])
    lease = await lead(store)
    await store.record("rack-a", lease.term, updates)


async def test_a_job_that_takes_over_a_result_is_done_at_once(store: JobStore) -> None:
    """It has the other job's result and exit code, no attempt and no node, and the id of the job that ran."""
    await ended(store, [done("ran")])
    [answer] = await store.insert([taking("j2", "ran", priority=3)])
    job = await one(store, "j2")
    assert (answer.created, answer.existing, answer.conflict, answer.reused_from) == (True, None, False, "ran")
    assert (job.state, job.result, job.exit_code, job.reused_from) == (JobState.DONE, SLICE, 0, "ran")
    assert (job.attempts, job.node_id, job.started_at, job.priority) == (0, None, None, 3)
    assert job.ended_at == job.submitted_at
    assert (await one(store, "ran")).reused_from is None


async def test_the_digests_of_chunks_are_kept_with_the_result_and_taken_over_with_it(store: JobStore) -> None:
    """A large result's are there for the job that ran and for one that shares it, until the result is purged."""
    chunks = bytes(range(256))
    large = replace(report("ran", "c"), chunks=chunks)
    await ended(store, [replace(done("ran"), report=large), done("small", "other")])
    await store.insert([taking("j2", "ran")])
    found = {job_id: await store.result_chunks(job_id) for job_id in ("ran", "j2", "small", "unknown")}
    assert found == {"ran": chunks, "j2": chunks, "small": None, "unknown": None}
    await store.purge(AT + timedelta(days=36_500))
    assert await store.result_chunks("ran") is None


async def test_a_result_that_was_found_damaged_is_offered_no_more(store: JobStore) -> None:
    """Neither by the job that ran nor by those that share it; an equal result in another place still is."""
    elsewhere = SLICE._replace(key="results/2")
    await ended(store, [done("older", result=elsewhere), done("ran")])
    await store.insert([taking("shares", "ran")])
    assert await store.stop_reuse(SLICE) == 2
    assert (await store.reusable(["c"]))["c"] == ("older", elsewhere)
    [late] = await store.insert([taking("late", "ran")])
    assert (late.reused_from, (await one(store, "late")).state) == (None, JobState.QUEUED)
    assert (await one(store, "shares")).result == SLICE
    assert await store.stop_reuse(SLICE) == 0


async def test_no_leader_gets_a_reused_job(store: JobStore) -> None:
    """A job that took over a result is neither queued nor running nor unfinished."""
    await ended(store, [done("ran")])
    await store.insert([taking("j2", "ran"), new("j3")])
    assert [job.spec.job_id for job in await store.queued("rack-a", 10)] == ["j3"]
    assert [job.spec.job_id for job in await store.unfinished_of("rack-a", ["ran", "j2", "j3"])] == ["j3"]
    assert await store.count_queued("rack-a") == 1


async def test_a_result_is_found_by_its_content_once_its_job_is_done(store: JobStore) -> None:
    """A content leads to the latest job recorded under it; unknown ones, and jobs without any, to nothing."""
    await ended(store, [done("a"), done("b", "other"), done("c", None)])
    await ended(store, [done("later")])
    found = await store.reusable(["c", "other", "nobody's", "c"])
    assert {content: job.job_id for content, job in found.items()} == {"c": "later", "other": "b"}
    assert found["c"].result == (await one(store, "later")).result == SLICE
    assert await store.reusable([]) == {}


async def test_many_contents_are_found_in_one_call(store: JobStore) -> None:
    """Thousands of contents, of which some are there."""
    await ended(store, [done(f"j{number}", f"c{number}") for number in range(1_700)])
    found = await store.reusable([f"c{number}" for number in range(0, 6_000, 2)])
    assert {content: job.job_id for content, job in found.items()} == {f"c{n}": f"j{n}" for n in range(0, 1_700, 2)}


@pytest.mark.parametrize(
    "update",
    [
        JobUpdate(
            "j1", JobState.FAILED, AttemptCounts(1), "n1", AT, reason="exit_code", report=report("j1", "c", code=3)
        ),
        JobUpdate("j1", JobState.CANCELLED, AttemptCounts(1), "n1", AT, reason="cancelled", report=report("j1", "c")),
        JobUpdate("j1", JobState.DONE, AttemptCounts(1), "n1", AT, report=report("j1", "c", result=None)),
        JobUpdate("j1", JobState.RUNNING, AttemptCounts(1), "n1", AT),
    ],
    ids=["failed", "cancelled", "without a result", "running"],
)
async def test_only_a_success_is_reused(store: JobStore, update: JobUpdate) -> None:
    """A job that failed, was cancelled, left nothing or still runs is not found, and a job that names it is queued."""
    await ended(store, [update])
    assert await store.reusable(["c"]) == {}
    [answer] = await store.insert([taking("j2", "j1")])
    assert (answer.created, answer.reused_from) == (True, None)
    assert (await one(store, "j2")).state is JobState.QUEUED


async def test_a_result_without_a_content_is_not_shared(store: JobStore) -> None:
    """A job that is done without a content (reuse was off where it ran) is no source, nor is a missing one."""
    await ended(store, [done("private", None)])
    await store.insert([taking("j2", "private"), taking("j3", "nowhere")])
    assert {job.state for job in (await store.get(["j2", "j3"])).values()} == {JobState.QUEUED}


async def test_a_chain_leads_to_the_job_that_ran(store: JobStore) -> None:
    """A job that takes over from one that took over names the first, and can itself be found."""
    await ended(store, [done("ran")])
    await store.insert([taking("j2", "ran")])
    assert (await store.reusable(["c"]))["c"].job_id == "j2"
    await store.insert([taking("j3", "j2")])
    assert (await one(store, "j3")).reused_from == "ran"


async def test_a_reused_job_belongs_to_its_batch_like_any_other(store: JobStore) -> None:
    """Reused and queued jobs of one call are counted, paged and read by cursor together."""
    await ended(store, [done("ran")])
    answers = await store.insert([taking("j2", "ran"), new("j3"), taking("j4", "ran")], "b1")
    assert [answer.reused_from for answer in answers] == ["ran", None, "ran"]
    summary = await store.batch("b1")
    assert summary is not None
    assert (summary.counts, summary.reused) == ({JobState.DONE: 2, JobState.QUEUED: 1}, 2)
    assert ids(await store.jobs(batch_id="b1", state=JobState.DONE)) == ["j2", "j4"]
    assert await store.unfinished_of_batch("b1") == ["j3"]
    seen = await store.changed("b1", 0, 10, ended_only=True)
    assert [each.job.job_id for each in seen] == ["j2", "j4"]
    assert 0 < seen[0].cursor < seen[1].cursor
    assert await store.changed("b1", seen[1].cursor, 10, ended_only=True) == []


async def test_an_existing_job_is_unchanged(store: JobStore) -> None:
    """Attaching and conflicts work as without reuse, whatever source the second submit names."""
    await ended(store, [done("ran")])
    await store.insert([new("j2")])
    same, other = await store.insert([taking("j2", "ran"), taking("ran", "ran", fingerprint="g")])
    assert (same.created, same.conflict, same.reused_from) == (False, False, None)
    assert same.existing is not None
    assert (other.created, other.conflict, other.reused_from) == (False, True, None)
    assert (await one(store, "j2")).state is JobState.QUEUED


async def test_the_same_job_twice_in_one_call_takes_over_once(store: JobStore) -> None:
    """The second of two equal jobs attaches to the first, which is done; another input is a conflict."""
    await ended(store, [done("ran")])
    jobs = [taking("j2", "ran"), taking("j2", "ran"), taking("j2", "ran", fingerprint="g")]
    answers = await store.insert(jobs)
    assert [(each.created, each.conflict, each.reused_from) for each in answers] == [
        (True, False, "ran"),
        (False, False, "ran"),
        (False, True, None),
    ]


async def test_a_reused_job_changes_no_more(store: JobStore) -> None:
    """Neither a leader's write nor a cancellation changes a job that took over a result."""
    await ended(store, [done("ran")])
    await store.insert([taking("j2", "ran")])
    before = await one(store, "j2")
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("j2", "x", BlobSlice("results/2", 0, 1, "z"))])
    assert await store.request_cancel(["j2"]) == []
    assert await one(store, "j2") == before
    assert await store.reusable(["x"]) == {}


async def test_a_purge_leaves_a_result_that_a_younger_job_shares(store: JobStore) -> None:
    """The blob goes when the last job that shares it is purged, and not before."""
    await ended(store, [done("ran")])
    await store.insert([taking("j2", "ran")])
    first = await store.purge(AT + timedelta(seconds=1))
    assert (first.jobs, first.blob_keys) == (1, ())
    assert (await one(store, "ran")).purged_at is not None
    assert await store.blobs_in_use(["results/1"]) == {"results/1"}
    ended_at = (await one(store, "j2")).ended_at
    assert ended_at is not None
    second = await store.purge(ended_at + timedelta(seconds=1))
    assert (second.jobs, second.blob_keys) == (1, ("results/1",))


async def test_a_purged_result_is_reused_no_more(store: JobStore) -> None:
    """A purged job is not found, and a job that names it is queued; one that shares its result is still a source."""
    await ended(store, [done("ran")])
    await store.insert([taking("j2", "ran")])
    await store.purge(AT + timedelta(seconds=1))
    [from_purged, from_younger] = await store.insert([taking("j3", "ran"), taking("j4", "j2")])
    assert (from_purged.reused_from, from_younger.reused_from) == (None, "ran")
    assert (await one(store, "j3")).state is JobState.QUEUED
    assert (await store.reusable(["c"]))["c"].job_id == "j4"
    for job_id in ("j2", "j4"):
        ended_at = (await one(store, job_id)).ended_at
        assert ended_at is not None
        await store.purge(ended_at + timedelta(seconds=1))
    assert await store.reusable(["c"]) == {}
