"""What every job store guarantees: one suite over all adapters of the `JobStore` port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from raygrid.core.attempt_counts import NO_ATTEMPTS, AttemptCounts
from raygrid.core.lease import Lease
from raygrid.errors import StaleTermError
from raygrid.models import (
    AttemptId,
    AttemptReport,
    BlobSlice,
    JobSpec,
    JobState,
    JobUpdate,
    NewJob,
    Outcome,
    SharedData,
    StoredJob,
)
from raygrid.store import JobStore, SqlStore
from tests.simulation.memory_store import MemoryStore

# Another adapter needs one line here to be tested by the whole contract.
STORES: dict[str, Callable[[pytest.FixtureRequest], JobStore]] = {
    "memory": lambda request: MemoryStore(),
    "sqlite": lambda request: SqlStore(f"sqlite+aiosqlite:///{request.getfixturevalue('tmp_path') / 'jobs.db'}"),
    "postgresql": lambda request: SqlStore(request.getfixturevalue("database")),
}
AT = datetime(2026, 3, 1, 18, 30, 0, 123_456, tzinfo=UTC)


@pytest.fixture(
    params=[pytest.param(name, marks=[pytest.mark.postgres] if name == "postgresql" else []) for name in STORES]
)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[JobStore]:
    opened = STORES[request.param](request)
    await opened.open()
    yield opened
    await opened.close()


def new(job_id: str, *, group: str = "rack-a", fingerprint: str = "f", priority: int = 0, **spec: Any) -> NewJob:
    fields: dict[str, Any] = {
        "pricer": "p",
        "version": "1",
        "input": BlobSlice("", 0, 2, "d"),
        "inline": b"{}",
    }
    return NewJob(
        JobSpec(job_id=job_id, priority=priority, **{**fields, **spec}),
        group_id=group,
        fingerprint=fingerprint,
    )


async def one(store: JobStore, job_id: str) -> StoredJob:
    return (await store.get([job_id]))[job_id]


async def lead(store: JobStore, group: str = "rack-a", holder: str = "leader") -> Lease:
    lease = await store.acquire_lease(group, holder, 60)
    assert lease is not None
    return lease


def running(job_id: str, number: int = 1, node: str = "n1") -> JobUpdate:
    return JobUpdate(job_id, JobState.RUNNING, AttemptCounts(number), node, AT)


def done(job_id: str, number: int = 1, node: str = "n1", *, at: datetime = AT, key: str = "results/1") -> JobUpdate:
    report = AttemptReport(AttemptId(job_id, number), Outcome.EXITED, 0, result=BlobSlice(key, 0, 9, "r"))
    return JobUpdate(job_id, JobState.DONE, AttemptCounts(number), node, at, report=report)


def ids(jobs: list[StoredJob]) -> list[str]:
    return [job.job_id for job in jobs]


# --- insertion ----------------------------------------------------------------------------------------------


async def test_a_new_job_is_created_as_queued(store: JobStore) -> None:
    """A job inserted for the first time is created, queued and without attempts."""
    [answer] = await store.insert([new("j1")])
    job = await one(store, "j1")
    assert (answer.created, answer.existing, answer.conflict) == (True, None, False)
    assert (job.state, job.attempts, job.node_id, job.group_id) == (JobState.QUEUED, 0, None, "rack-a")


async def test_the_same_job_again_attaches(store: JobStore) -> None:
    """A second insert with the same fingerprint creates and changes nothing, and gives the existing job."""
    await store.insert([new("j1", group="rack-a", priority=1)])
    before = await one(store, "j1")
    [answer] = await store.insert([new("j1", group="rack-b", priority=9)])
    assert (answer.created, answer.existing, answer.conflict) == (False, before, False)
    assert await one(store, "j1") == before


async def test_another_input_under_a_taken_id_is_a_conflict(store: JobStore) -> None:
    """An insert with another fingerprint is refused and leaves the job unchanged."""
    await store.insert([new("j1", fingerprint="f")])
    before = await one(store, "j1")
    [answer] = await store.insert([new("j1", fingerprint="other")], "b1")
    assert (answer.created, answer.existing, answer.conflict) == (False, before, True)
    assert await one(store, "j1") == before


async def test_the_same_job_twice_in_one_call_is_one_job(store: JobStore) -> None:
    """Of two equal jobs in one call the first is created and the second attaches."""
    first, second = await store.insert([new("j1"), new("j1")], "b1")
    assert [first.created, second.created] == [True, False]
    assert [first.conflict, second.conflict] == [False, False]
    summary = await store.batch("b1")
    assert summary is not None
    assert summary.total == 1


async def test_one_id_with_two_inputs_in_one_call_is_a_conflict_for_the_second(store: JobStore) -> None:
    """Of two different jobs with one id in one call the first is created, the second refused."""
    first, second = await store.insert([new("j1", fingerprint="f"), new("j1", fingerprint="g")])
    assert (first.created, first.conflict) == (True, False)
    assert (second.created, second.conflict) == (False, True)
    assert (await one(store, "j1")).fingerprint == "f"


async def test_a_conflict_does_not_affect_the_rest_of_the_call(store: JobStore) -> None:
    """The other jobs of a call with a conflict are inserted, in its batch, and answered in order."""
    await store.insert([new("j1", fingerprint="old")])
    answers = await store.insert([new("j0"), new("j1"), new("j2")], "b1")
    assert [answer.created for answer in answers] == [True, False, True]
    assert [answer.conflict for answer in answers] == [False, True, False]
    assert ids(await store.jobs(batch_id="b1")) == ["j0", "j2"]


async def test_a_call_may_have_more_jobs_than_one_statement_can_bind(store: JobStore) -> None:
    """Thousands of jobs are inserted, read and changed in one call each."""
    names = [f"j{number:04}" for number in range(1_700)]
    answers = await store.insert([new(name) for name in names], "b1")
    lease = await lead(store)
    await store.record("rack-a", lease.term, [running(name) for name in names])
    assert all(answer.created for answer in answers)
    assert len(await store.get(names)) == 1_700
    assert len(await store.running("rack-a")) == 1_700
    assert len(await store.changed("b1", 0, 5_000)) == 1_700


async def test_empty_calls_change_nothing(store: JobStore) -> None:
    """They give empty answers."""
    assert await store.insert([]) == []
    assert await store.get([]) == {}
    assert await store.get(["unknown"]) == {}
    assert await store.request_cancel([]) == []
    assert await store.blobs_in_use([]) == set()
    await store.record("rack-a", 1, [])


# --- every field comes back ---------------------------------------------------------------------------------

UNICODE = "Zürich £ 東京 🚀 'quoted' \\ \"double\""


async def test_every_field_of_a_submit_comes_back(store: JobStore) -> None:
    """The store gives back what a client sent, unicode, zero and empty values included."""
    spec = JobSpec(
        job_id="j-é",
        pricer="p",
        version=UNICODE,
        input=BlobSlice("packs/7", 3_000_000_000, 5_000_000_000, "d" * 64),
        filename=f"{UNICODE}.csv",
        args=("--shift", "", UNICODE, "\0\t\n"),
        priority=-7,
        timeout_s=0.25,
        inline=bytes(range(256)),
        data=(SharedData("market", "m" * 64, 5_000_000_000), SharedData(UNICODE, "u" * 64, 0)),
    )
    await store.insert([NewJob(spec, "rack-ä", "f" * 64, affinity=UNICODE, site="LDN")])
    job = await one(store, "j-é")
    assert (job.pricer, job.version, job.filename, job.args) == ("p", UNICODE, f"{UNICODE}.csv", spec.args)
    assert (job.input, job.data, job.priority, job.timeout_s) == (spec.input, spec.data, -7, 0.25)
    assert (job.group_id, job.fingerprint, job.affinity, job.site) == ("rack-ä", "f" * 64, UNICODE, "LDN")
    assert (job.reason, job.message, job.exit_code, job.signal, job.stderr_tail) == (None,) * 5
    assert (job.result, job.started_at, job.ended_at, job.purged_at) == (None,) * 4
    assert job.cancel_requested is False
    [held] = await store.queued("rack-ä", 10)
    assert held.spec == spec
    assert (held.counts.started, held.node_id, held.running, held.cancel_requested) == (0, None, False, False)


async def test_absent_values_come_back_as_none(store: JobStore) -> None:
    """Optional fields that a submit leaves out are None or empty, not zero or blank text."""
    await store.insert([new("j1", inline=None)])
    job = await one(store, "j1")
    assert (job.affinity, job.site, job.timeout_s, job.args, job.data) == (None, None, None, (), ())
    assert (await store.queued("rack-a", 1))[0].spec.inline is None


async def test_every_field_of_a_report_comes_back(store: JobStore) -> None:
    """What a node reported of the attempt that ended a job can be read from the job."""
    await store.insert([new("j1")])
    lease = await lead(store)
    started, ended = AT - timedelta(seconds=2, microseconds=7), AT - timedelta(seconds=1)
    report = AttemptReport(
        AttemptId("j1", 3),
        Outcome.SIGNAL,
        exit_code=-11,
        signal=11,
        message="in the report",
        stderr_tail=f"{UNICODE}\n",
        result=BlobSlice("results/1", 4_000_000_000, 12, "r" * 64),
        started_at=started,
        ended_at=ended,
    )
    change = JobUpdate(
        "j1", JobState.FAILED, AttemptCounts(3), "n-ö", AT, reason="signal", report=report, message=UNICODE
    )
    await store.record("rack-a", lease.term, [change])
    job = await one(store, "j1")
    assert (job.state, job.attempts, job.node_id, job.reason) == (JobState.FAILED, 3, "n-ö", "signal")
    assert (job.message, job.exit_code, job.signal) == (UNICODE, -11, 11)
    assert (job.stderr_tail, job.result) == (f"{UNICODE}\n", report.result)
    assert (job.started_at, job.ended_at) == (started, AT)


async def test_text_that_no_database_can_hold_is_replaced(store: JobStore) -> None:
    """NUL and half surrogate pairs in a pricer's stderr cannot make a leader's write fail."""
    await store.insert([new("j1"), new("j2")])
    lease = await lead(store)
    report = AttemptReport(AttemptId("j1", 1), Outcome.EXITED, 1, stderr_tail="a\0b\ud800c")
    broken = JobUpdate("j1", JobState.FAILED, AttemptCounts(1), "n1", AT, "exit_code", report, "x\0")
    await store.record("rack-a", lease.term, [broken, done("j2")])
    job = await one(store, "j1")
    assert (job.stderr_tail, job.message) == ("a\N{REPLACEMENT CHARACTER}b?c", "x\N{REPLACEMENT CHARACTER}")
    assert (await one(store, "j2")).state is JobState.DONE


# --- a leader's writes --------------------------------------------------------------------------------------


async def test_a_leader_moves_a_job_through_its_life(store: JobStore) -> None:
    """Running, queued again, running again and done are written with attempts, node and times."""
    await store.insert([new("j1")])
    lease = await lead(store)

    async def move(change: JobUpdate) -> tuple[JobState, int, str | None, datetime | None, datetime | None]:
        await store.record("rack-a", lease.term, [change])
        job = await one(store, "j1")
        return job.state, job.attempts, job.node_id, job.started_at, job.ended_at

    later = AT + timedelta(seconds=5)
    assert await move(running("j1", 1, "n1")) == (JobState.RUNNING, 1, "n1", AT, None)
    assert [held.node_id for held in await store.running("rack-a")] == ["n1"]
    requeued = JobUpdate("j1", JobState.QUEUED, AttemptCounts(1), None, later)
    assert await move(requeued) == (JobState.QUEUED, 1, None, AT, None)
    assert await move(replace(running("j1", 2, "n2"), at=later)) == (JobState.RUNNING, 2, "n2", later, None)
    assert await move(done("j1", 2, "n2", at=later)) == (JobState.DONE, 2, "n2", later, later)


async def test_each_change_gets_a_higher_revision(store: JobStore) -> None:
    """Revisions rise with every change of every job and never repeat."""
    await store.insert([new("j1"), new("j2")])
    lease = await lead(store)
    seen = [(await one(store, name)).revision for name in ("j1", "j2")]
    for change in (running("j1"), running("j2"), done("j1"), done("j2")):
        await store.record("rack-a", lease.term, [change])
        seen.append((await one(store, change.job_id)).revision)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("offset", [-1, 1])
async def test_a_write_under_another_term_writes_nothing(store: JobStore, offset: int) -> None:
    """Updates with a term that is not the group's current one are refused as a whole."""
    await store.insert([new("j1"), new("j2")])
    lease = await lead(store)
    before = await store.get(["j1", "j2"])
    with pytest.raises(StaleTermError, match="rack-a"):
        await store.record("rack-a", lease.term + offset, [running("j1"), done("j2")])
    assert await store.get(["j1", "j2"]) == before


async def test_a_write_without_any_lease_is_refused(store: JobStore) -> None:
    """If no candidate ever led a group, its jobs cannot be written."""
    await store.insert([new("j1")])
    with pytest.raises(StaleTermError):
        await store.record("rack-a", 1, [running("j1")])
    assert (await one(store, "j1")).state is JobState.QUEUED


@pytest.mark.parametrize("state", [JobState.DONE, JobState.FAILED, JobState.CANCELLED])
async def test_an_ended_job_never_changes(store: JobStore, state: JobState) -> None:
    """After its end no update of a leader changes a job, and none fails for it either."""
    await store.insert([new("j1"), new("j2")])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [replace(done("j1"), state=state)])
    before = await one(store, "j1")
    for change in (
        running("j1", 2),
        done("j1", 2, key="other"),
        JobUpdate("j1", JobState.CANCELLED, AttemptCounts(9), None, AT),
    ):
        await store.record("rack-a", lease.term, [change, running("j2")])
    assert await one(store, "j1") == before
    assert (await one(store, "j2")).state is JobState.RUNNING


async def test_the_first_of_two_ends_in_one_write_counts(store: JobStore) -> None:
    """Two ends of one job in one call leave the first one."""
    await store.insert([new("j1")])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("j1", key="first"), done("j1", 2, key="second")])
    job = await one(store, "j1")
    assert job.result is not None
    assert (job.result.key, job.attempts) == ("first", 1)


async def test_a_write_returns_whether_all_jobs_were_updated(store: JobStore) -> None:
    """Only then may a leader report the ends as stored; of many written together a store may not know."""
    await store.insert([new("j1"), new("j2"), new("j3"), new("moved", group="rack-b")])
    lease = await lead(store)
    assert await store.record("rack-a", lease.term, [done("j1")])
    assert not await store.record("rack-a", lease.term, [done("j1", 2, key="late")])
    assert not await store.record("rack-a", lease.term, [done("moved")])
    assert not await store.record("rack-a", lease.term, [done("j2"), done("moved")])
    assert not await store.record("rack-a", lease.term, [done("j3"), done("j2", 2, key="late")])
    assert (await one(store, "j3")).state is JobState.DONE


async def test_a_leader_cannot_change_another_groups_jobs(store: JobStore) -> None:
    """Updates for a job of another group, or for none at all, are ignored."""
    await store.insert([new("mine"), new("theirs", group="rack-b")])
    lease = await lead(store)
    before = await one(store, "theirs")
    await store.record("rack-a", lease.term, [running("theirs"), running("nobody"), running("mine")])
    assert await one(store, "theirs") == before
    assert (await one(store, "mine")).state is JobState.RUNNING


async def test_attempts_never_fall(store: JobStore) -> None:
    """A leader that knows of fewer attempts than the store does not lower their number."""
    await store.insert([new("j1")])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [running("j1", 3)])
    await store.record("rack-a", lease.term, [JobUpdate("j1", JobState.CANCELLED, NO_ATTEMPTS, None, AT, "cancelled")])
    assert (await one(store, "j1")).attempts == 3


# --- the queue ----------------------------------------------------------------------------------------------


async def test_the_queue_runs_by_priority_then_arrival(store: JobStore) -> None:
    """Higher priority first, first in first out inside one, whatever the ids and however they came."""
    await store.insert([new("z"), new("y", priority=5)])
    await store.insert([new("x"), new("w", priority=5), new("v", priority=-1)])
    await store.insert([new("other", group="rack-b", priority=9)])
    assert [held.spec.job_id for held in await store.queued("rack-a", 10)] == ["y", "w", "z", "x", "v"]
    assert [held.spec.job_id for held in await store.queued("rack-a", 2)] == ["y", "w"]
    assert (await store.count_queued("rack-a"), await store.count_queued("rack-b")) == (5, 1)


async def test_the_order_of_one_call_is_its_order_in_spite_of_a_repeated_id(store: JobStore) -> None:
    """A job that a call names twice has the place of its first mention."""
    await store.insert([new("a"), new("b"), new("a")])
    assert [held.spec.job_id for held in await store.queued("rack-a", 10)] == ["a", "b"]


async def test_a_position_counts_the_jobs_before(store: JobStore) -> None:
    """A job's position is the number of queued jobs of its group that run before it."""
    await store.insert([new("a"), new("b"), new("urgent", priority=5), new("far", group="rack-b")])
    lease = await lead(store)
    jobs = await store.get(["a", "b", "urgent", "far"])
    positions = {name: await store.queue_position(job) for name, job in jobs.items()}
    assert positions == {"urgent": 0, "a": 1, "b": 2, "far": 0}
    await store.record("rack-a", lease.term, [running("urgent")])
    assert await store.queue_position(jobs["b"]) == 1


async def test_a_requeued_job_keeps_its_place(store: JobStore) -> None:
    """A job that goes back to the queue has its old place and its attempts."""
    await store.insert([new("a"), new("b")])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [running("a", 1)])
    assert await store.count_queued("rack-a") == 1
    await store.record("rack-a", lease.term, [JobUpdate("a", JobState.QUEUED, AttemptCounts(1), None, AT)])
    first = (await store.queued("rack-a", 10))[0]
    assert (first.spec.job_id, first.counts.started, first.running) == ("a", 1, False)


async def test_running_jobs_are_found_with_their_node_and_input(store: JobStore) -> None:
    """A new leader finds the running jobs, with node and attempt, and can hand them out again."""
    await store.insert([new("a", inline=b"payload"), new("b"), new("c", group="rack-b")])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [running("a", 2, "n7")])
    [held] = await store.running("rack-a")
    assert (held.spec.job_id, held.spec.inline) == ("a", b"payload")
    assert (held.counts.started, held.node_id, held.running) == (2, "n7", True)


# --- cancelling ---------------------------------------------------------------------------------------------


async def test_cancelling_marks_the_unfinished(store: JobStore) -> None:
    """Unfinished jobs are marked and given back in the order asked; ended and unknown ones are left alone."""
    await store.insert([new("queued"), new("running"), new("ended")])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [running("running"), done("ended")])
    before = await one(store, "ended")
    marked = await store.request_cancel(["running", "ended", "unknown", "queued", "running"])
    assert ids(marked) == ["running", "queued"]
    assert all(job.cancel_requested for job in marked)
    assert [job.state for job in marked] == [JobState.RUNNING, JobState.QUEUED]
    assert await one(store, "ended") == before
    assert [held.cancel_requested for held in await store.queued("rack-a", 9)] == [True]
    assert [held.cancel_requested for held in await store.running("rack-a")] == [True]


async def test_a_request_to_cancel_is_a_change(store: JobStore) -> None:
    """A reader of a batch sees that a job is to be cancelled, once."""
    await store.insert([new("j1"), new("j2")], "b1")
    cursor = (await store.changed("b1", 0, 10))[-1].cursor
    await store.request_cancel(["j2"])
    [change] = await store.changed("b1", cursor, 10)
    assert (change.job.job_id, change.job.cancel_requested) == ("j2", True)
    await store.request_cancel(["j2"])
    assert await store.changed("b1", change.cursor, 10) == []


async def test_a_cancelled_job_may_still_finish(store: JobStore) -> None:
    """The request alone ends nothing: the leader's write decides."""
    await store.insert([new("j1")])
    lease = await lead(store)
    await store.request_cancel(["j1"])
    await store.record("rack-a", lease.term, [done("j1")])
    job = await one(store, "j1")
    assert (job.state, job.cancel_requested) == (JobState.DONE, True)


# --- pages --------------------------------------------------------------------------------------------------


async def test_pages_are_ordered_by_id_and_complete(store: JobStore) -> None:
    """Page after page, each starting after the last id, gives every job once."""
    names = sorted(["a", "B", "b", "c-1", "c-10", "c-2", "é", "z", "0", "_"])
    await store.insert([new(name) for name in reversed(names)])
    seen: list[str] = []
    while page := await store.jobs(after=seen[-1] if seen else None, limit=3):
        assert len(page) <= 3
        seen += ids(page)
    assert seen == names


async def test_pages_can_be_narrowed(store: JobStore) -> None:
    """State and batch narrow a page, alone and together."""
    await store.insert([new("a"), new("b"), new("c")], "b1")
    await store.insert([new("d")], "b2")
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("a"), done("d")])
    assert ids(await store.jobs(state=JobState.DONE)) == ["a", "d"]
    assert ids(await store.jobs(batch_id="b1")) == ["a", "b", "c"]
    assert ids(await store.jobs(batch_id="b1", state=JobState.DONE)) == ["a"]
    assert ids(await store.jobs(batch_id="b1", after="a", limit=1)) == ["b"]
    assert await store.jobs(batch_id="unknown") == []


# --- batches ------------------------------------------------------------------------------------------------


async def test_a_batch_counts_its_jobs_by_state(store: JobStore) -> None:
    """The summary follows the jobs, and is finished when each has ended."""
    await store.insert([new("a"), new("b"), new("c")], "b1")
    lease = await lead(store)
    await store.record("rack-a", lease.term, [running("a"), done("b")])
    summary = await store.batch("b1")
    assert summary is not None
    assert summary.counts == {JobState.QUEUED: 1, JobState.RUNNING: 1, JobState.DONE: 1}
    assert (summary.total, summary.finished) == (3, False)
    assert sorted(await store.unfinished_of_batch("b1")) == ["a", "c"]
    await store.record("rack-a", lease.term, [done("a"), JobUpdate("c", JobState.CANCELLED, NO_ATTEMPTS, None, AT)])
    summary = await store.batch("b1")
    assert summary is not None
    assert (summary.total, summary.finished) == (3, True)
    assert await store.unfinished_of_batch("b1") == []


async def test_the_unfinished_jobs_of_a_batch_that_changed_longest_ago_come_first(store: JobStore) -> None:
    """Asked for one, the store gives a job that waits rather than one that has just begun, and none once all ended."""
    await store.insert([new("a"), new("b"), new("c")], "b1")
    lease = await lead(store)
    await store.record("rack-a", lease.term, [running("a"), done("b")])
    assert await store.unfinished_of_batch("b1") == ["c", "a"]
    assert await store.unfinished_of_batch("b1", 1) == ["c"]
    await store.record("rack-a", lease.term, [done("c")])
    assert await store.unfinished_of_batch("b1", 1) == ["a"]
    await store.record("rack-a", lease.term, [done("a")])
    assert await store.unfinished_of_batch("b1", 1) == []


async def test_an_unknown_batch_is_none_and_an_empty_one_is_finished(store: JobStore) -> None:
    """No batch and a batch without jobs are distinguished."""
    assert await store.batch("b1") is None
    assert await store.unfinished_of_batch("b1") == []
    assert await store.changed("b1", 0, 10) == []
    await store.insert([], "b1")
    summary = await store.batch("b1")
    assert summary is not None
    assert (summary.total, summary.finished) == (0, True)


async def test_a_batch_grows(store: JobStore) -> None:
    """Jobs appended to a batch join it once, and its time of submission stays."""
    await store.insert([new("a"), new("b")], "b1")
    first = await store.batch("b1")
    await store.insert([new("b"), new("c")], "b1")
    grown = await store.batch("b1")
    assert first is not None
    assert grown is not None
    assert (grown.total, grown.submitted_at) == (3, first.submitted_at)
    assert ids(await store.jobs(batch_id="b1")) == ["a", "b", "c"]


# --- the cursor ---------------------------------------------------------------------------------------------


async def test_a_reader_that_resumes_misses_nothing(store: JobStore) -> None:
    """From any cursor, in pages of any size, a reader gets every later change of every job in its latest form."""
    names = ["a", "b", "c", "d", "e"]
    await store.insert([new(name) for name in names], "b1")
    lease = await lead(store)
    cursor, seen = 0, dict.fromkeys(names, JobState.QUEUED)
    for changes in ([running("a"), running("b")], [done("b")], [running("c"), done("a")], [done("e")]):
        await store.record("rack-a", lease.term, changes)
        while page := await store.changed("b1", cursor, 2):
            assert [change.cursor for change in page] == sorted({change.cursor for change in page})
            assert page[0].cursor > cursor
            cursor = page[-1].cursor
            seen.update({change.job.job_id: change.job.state for change in page})
        assert seen == {name: job.state for name, job in (await store.get(names)).items()}


async def test_a_job_appears_once_at_its_latest_change(store: JobStore) -> None:
    """However often a job changed, a reader gets it once, in the order of latest changes."""
    await store.insert([new("a"), new("b")], "b1")
    lease = await lead(store)
    for change in (running("a"), JobUpdate("a", JobState.QUEUED, AttemptCounts(1), None, AT), running("a", 2)):
        await store.record("rack-a", lease.term, [change])
    changes = await store.changed("b1", 0, 10)
    assert [change.job.job_id for change in changes] == ["b", "a"]
    assert changes[-1].job.state is JobState.RUNNING


async def test_only_ends_are_given_on_request(store: JobStore) -> None:
    """With `ended_only` a page is filled with ends, and unfinished jobs do not use it up."""
    await store.insert([new("a"), new("b"), new("c")], "b1")
    lease = await lead(store)
    await store.record("rack-a", lease.term, [running("a"), running("c"), done("b"), done("c")])
    first = await store.changed("b1", 0, 1, ended_only=True)
    assert [change.job.job_id for change in first] == ["b"]
    rest = await store.changed("b1", first[-1].cursor, 9, ended_only=True)
    assert [change.job.job_id for change in rest] == ["c"]
    assert await store.changed("b1", rest[-1].cursor, 9, ended_only=True) == []


async def test_readers_of_two_batches_both_see_a_shared_job(store: JobStore) -> None:
    """A job attached to a second batch shows there from then on, and its changes show in both."""
    await store.insert([new("a")], "b1")
    await store.insert([new("a"), new("b")], "b2")
    lease = await lead(store)
    cursors = {batch: (await store.changed(batch, 0, 10))[-1].cursor for batch in ("b1", "b2")}
    await store.record("rack-a", lease.term, [done("a")])
    for batch, cursor in cursors.items():
        [change] = await store.changed(batch, cursor, 10)
        assert (change.job.job_id, change.job.state) == ("a", JobState.DONE)


async def test_a_finished_job_that_joins_a_batch_is_read_there(store: JobStore) -> None:
    """A finished job attached to a batch that is being read is not missed, nor shown elsewhere again."""
    await store.insert([new("old")], "b1")
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("old")])
    await store.insert([new("a")], "b2")
    await store.record("rack-a", lease.term, [done("a")])
    cursor_1 = (await store.changed("b1", 0, 10))[-1].cursor
    cursor_2 = (await store.changed("b2", 0, 10, ended_only=True))[-1].cursor
    await store.insert([new("old")], "b2")
    await store.record("rack-a", lease.term, [done("old", 2)])  # refused, and must not move the cursor back
    assert [c.job.job_id for c in await store.changed("b2", cursor_2, 10, ended_only=True)] == ["old"]
    assert await store.changed("b1", cursor_1, 10) == []


async def test_a_refused_update_is_no_change(store: JobStore) -> None:
    """A late update of an ended job does not wake the readers of its batch."""
    await store.insert([new("a")], "b1")
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("a")])
    cursor = (await store.changed("b1", 0, 10))[-1].cursor
    await store.record("rack-a", lease.term, [done("a", 2), running("a", 3)])
    assert await store.changed("b1", cursor, 10) == []


# --- shared data --------------------------------------------------------------------------------------------


async def test_a_name_points_at_the_latest_content(store: JobStore) -> None:
    """Putting a name again moves it; names that were never put are left out."""
    await store.put_data(SharedData("market", "d1", 10))
    await store.put_data(SharedData("curves", "d2", 20))
    await store.put_data(SharedData("market", "d3", 5_000_000_000))
    everything = await store.get_data()
    assert {name: stored.data for name, stored in everything.items()} == {
        "market": SharedData("market", "d3", 5_000_000_000),
        "curves": SharedData("curves", "d2", 20),
    }
    assert all(stored.stored_at.tzinfo is not None for stored in everything.values())
    assert await store.get_data(["market", "unknown"]) == {"market": everything["market"]}
    assert await store.get_data([]) == {}


# --- leases -------------------------------------------------------------------------------------------------


async def test_the_first_lease_has_term_one(store: JobStore) -> None:
    """The first candidate that asks leads, until the ttl has passed by the store's clock."""
    before = datetime.now(UTC)
    lease = await store.acquire_lease("rack-a", "me", 60)
    assert lease is not None
    assert (lease.group_id, lease.holder, lease.term) == ("rack-a", "me", 1)
    assert before + timedelta(seconds=59) < lease.expires_at < datetime.now(UTC) + timedelta(seconds=61)


async def test_renewing_keeps_the_term(store: JobStore) -> None:
    """The holder of a live lease extends it under the same term."""
    first = await store.acquire_lease("rack-a", "me", 30)
    second = await store.acquire_lease("rack-a", "me", 90)
    assert first is not None
    assert second is not None
    assert second.term == first.term
    assert second.expires_at > first.expires_at


async def test_no_other_candidate_gets_a_live_lease(store: JobStore) -> None:
    """While a lease lives another candidate gets none; other groups are independent."""
    first = await lead(store, "rack-a", "me")
    assert await store.acquire_lease("rack-a", "you", 60) is None
    assert (await lead(store, "rack-b", "you")).term == 1
    await store.record("rack-a", first.term, [running("j1")])


async def test_a_takeover_raises_the_term_and_excludes_the_old_leader(store: JobStore) -> None:
    """After a lease ran out another candidate leads with a higher term, and the old one can write no more."""
    await store.insert([new("j1")])
    old = await store.acquire_lease("rack-a", "me", 0)
    new_lease = await store.acquire_lease("rack-a", "you", 60)
    assert old is not None
    assert new_lease is not None
    assert (new_lease.holder, new_lease.term) == ("you", old.term + 1)
    with pytest.raises(StaleTermError):
        await store.record("rack-a", old.term, [running("j1")])
    await store.record("rack-a", new_lease.term, [running("j1")])
    assert (await one(store, "j1")).state is JobState.RUNNING


async def test_coming_back_after_a_lapse_is_a_new_term(store: JobStore) -> None:
    """A holder whose lease ran out does not go on under the old term, even if no other took over."""
    old = await store.acquire_lease("rack-a", "me", 0)
    again = await store.acquire_lease("rack-a", "me", 60)
    assert old is not None
    assert again is not None
    assert again.term == old.term + 1


async def test_a_released_lease_can_be_taken_at_once(store: JobStore) -> None:
    """Giving a lease back lets another candidate lead without waiting for the ttl."""
    lease = await lead(store, "rack-a", "me")
    await store.release_lease(lease)
    taken = await store.acquire_lease("rack-a", "you", 60)
    assert taken is not None
    assert taken.term == lease.term + 1


async def test_leases_have_their_remaining_time(store: JobStore) -> None:
    """Each group's lease has its holder, its term and the time that is left by the store's clock."""
    await lead(store, "rack-a", "me")
    await store.acquire_lease("rack-b", "you", 0)
    found = await store.leases()
    assert {group: (each.lease.holder, each.lease.term) for group, each in found.items()} == {
        "rack-a": ("me", 1),
        "rack-b": ("you", 1),
    }
    assert 50 < found["rack-a"].left_s <= 60
    assert found["rack-b"].left_s <= 0


@pytest.mark.parametrize("successor", ["me", "you"])
async def test_a_stale_release_releases_nothing(store: JobStore, successor: str) -> None:
    """Giving back a lease of an old term leaves the present one alive, even if the holder is the same."""
    old = await store.acquire_lease("rack-a", "me", 0)
    assert old is not None
    await lead(store, "rack-a", successor)
    await store.release_lease(old)
    assert await store.acquire_lease("rack-a", "third", 60) is None


async def test_the_last_hand_over_is_kept_with_the_lease(store: JobStore) -> None:
    """Who requested it and when, while the lease is renewed, changes hands and expires."""
    await store.acquire_lease("rack-a", "one", 60)
    await store.acquire_lease("rack-b", "one", 60)
    await store.note_hand_over("rack-a", "eq")
    requested = await store.note_hand_over("rack-a", "fx")
    lease = await store.acquire_lease("rack-a", "one", 60)
    assert lease is not None
    await store.release_lease(lease)
    await store.acquire_lease("rack-a", "two", 60)

    found = await store.leases()
    assert requested.requested_by == "fx"
    assert (found["rack-a"].hand_over, found["rack-b"].hand_over) == (requested, None)


# --- retention ----------------------------------------------------------------------------------------------

DAY = timedelta(days=1)


async def test_only_old_ended_jobs_are_purged(store: JobStore) -> None:
    """Jobs that ended before the instant are emptied and marked; the young and the unfinished stay whole."""
    await store.insert(
        [new(name, input=BlobSlice(f"in/{name}", 0, 2, "d")) for name in ("old", "young", "queued", "running")]
    )
    lease = await lead(store)
    report = AttemptReport(
        AttemptId("old", 1), Outcome.EXITED, 1, stderr_tail="tail", result=BlobSlice("out", 0, 1, "r")
    )
    ended = JobUpdate("old", JobState.FAILED, AttemptCounts(1), "n1", AT - DAY, "exit_code", report, "failed")
    await store.record("rack-a", lease.term, [ended, done("young", at=AT), running("running")])
    others = await store.get(["young", "queued", "running"])

    purged = await store.purge(AT)

    assert (purged.jobs, purged.blob_keys) == (1, ("in/old", "out"))
    old = await one(store, "old")
    assert old.purged_at is not None
    assert (old.state, old.exit_code, old.message, old.stderr_tail) == (JobState.FAILED, 1, "failed", None)
    assert await store.get(["young", "queued", "running"]) == others
    assert (await store.purge(AT)).jobs == 0


async def test_a_purge_keeps_blobs_that_another_job_needs(store: JobStore) -> None:
    """A blob goes with the last job that refers to it, as input or as result."""
    shared = BlobSlice("pack", 0, 2, "d")
    await store.insert([new("a", input=shared), new("b", input=shared), new("c", input=BlobSlice("out/a", 0, 1, "x"))])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("a", at=AT - DAY, key="out/a"), done("c", at=AT - DAY, key="out/c")])
    assert await store.blobs_in_use(["pack", "out/a", "out/c", "nobody's"]) == {"pack", "out/a", "out/c"}
    assert await store.purge(AT - DAY) == await store.purge(AT - DAY)  # nothing ended before that instant

    assert (await store.purge(AT)).blob_keys == ("out/a", "out/c")
    assert await store.blobs_in_use(["pack", "out/a", "out/c"]) == {"pack"}
    await store.record("rack-a", lease.term, [done("b", at=AT, key="out/b")])
    assert (await store.purge(AT + DAY)).blob_keys == ("out/b", "pack")


async def test_a_purge_takes_the_oldest_first_in_steps(store: JobStore) -> None:
    """The limit bounds one purge, and the next goes on where it ended."""
    await store.insert([new(name) for name in ("a", "b", "c")])
    lease = await lead(store)
    ends = {"a": AT - DAY, "b": AT - 3 * DAY, "c": AT - 2 * DAY}
    await store.record("rack-a", lease.term, [done(name, at=at, key=f"out/{name}") for name, at in ends.items()])
    assert (await store.purge(AT, limit=2)).blob_keys == ("out/b", "out/c")
    assert (await store.purge(AT, limit=2)).blob_keys == ("out/a",)
    assert (await store.purge(AT, limit=2)).jobs == 0


async def test_a_purged_job_keeps_its_id(store: JobStore) -> None:
    """The same job submitted after its purge attaches to what is left; another input is a conflict."""
    await store.insert([new("a")])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("a", at=AT - DAY)])
    await store.purge(AT)
    same, other = await store.insert([new("a"), new("a", fingerprint="g")])
    assert (same.created, same.conflict, other.conflict) == (False, False, True)
    assert same.existing is not None
    assert same.existing.purged_at is not None


# --- what the next leader needs -----------------------------------------------------------------------------


async def test_the_next_leader_gets_the_number_of_attempts_that_count(store: JobStore) -> None:
    """The failures that count towards a job's limit are kept, apart from the number of attempts."""
    await store.insert([new("j1"), new("j2")])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [replace(running("j1", 3), counts=AttemptCounts(3, failures=1))])
    requeued = JobUpdate("j2", JobState.QUEUED, AttemptCounts(2, failures=2), None, AT)
    await store.record("rack-a", lease.term, [requeued])
    [held] = await store.running("rack-a")
    [waiting] = await store.queued("rack-a", 10)
    assert (held.counts.started, held.counts.failures) == (3, 1)
    assert (waiting.counts.started, waiting.counts.failures) == (2, 2)


async def test_the_next_leader_gets_the_outcomes_of_attempts(store: JobStore) -> None:
    """Losses, recalled attempts and those that never began are kept, and only those that began are shown."""
    await store.insert([new("j1")])
    lease = await lead(store)
    counts = AttemptCounts(8, failures=3, losses=2, recalled=4, unstarted=1)
    await store.record("rack-a", lease.term, [replace(running("j1"), counts=counts)])
    [held] = await store.running("rack-a")
    assert (held.counts, (await one(store, "j1")).attempts) == (counts, 7)


async def test_a_report_with_fewer_attempts_leaves_the_counts_unchanged(store: JobStore) -> None:
    """A job cancelled by a leader that has never seen it keeps the counts of what happened before."""
    await store.insert([new("j1")])
    lease = await lead(store)
    await store.record(
        "rack-a", lease.term, [JobUpdate("j1", JobState.QUEUED, AttemptCounts(5, losses=1, unstarted=2), None, AT)]
    )
    await store.record("rack-a", lease.term, [JobUpdate("j1", JobState.QUEUED, NO_ATTEMPTS, None, AT)])
    [waiting] = await store.queued("rack-a", 10)
    assert (waiting.counts.started, waiting.counts.unstarted, waiting.counts.losses) == (5, 2, 1)
    assert (await one(store, "j1")).attempts == 3


async def test_named_jobs_are_found_while_they_are_unfinished_and_the_groups(store: JobStore) -> None:
    """Of the jobs asked for, queued and running ones of the group come, with their input; ended and others' do not."""
    names = [f"j{number:04}" for number in range(700)]
    await store.insert([new("ended"), new("theirs", group="rack-b"), new("other"), *(new(name) for name in names)])
    lease = await lead(store)
    await store.record("rack-a", lease.term, [running("j0001", 2, "n7"), done("ended")])
    found = {job.spec.job_id: job for job in await store.unfinished_of("rack-a", [*names, "ended", "theirs", "none"])}
    assert found.keys() == set(names)
    assert (found["j0000"].running, found["j0000"].spec.inline) == (False, b"{}")
    assert (found["j0001"].counts.started, found["j0001"].node_id, found["j0001"].running) == (2, "n7", True)
    assert await store.unfinished_of("rack-a", []) == []


# --- drains and agreements ------------------------------------------------------------------------------------------


async def test_a_drain_is_kept_until_the_undrain(store: JobStore) -> None:
    await store.put_drain("rack-a-1")

    assert list(await store.drains()) == ["rack-a-1"]
    assert (await store.drains())["rack-a-1"].deadline_at is None
    assert await store.delete_drain("rack-a-1")
    assert not await store.delete_drain("rack-a-1")
    assert await store.drains() == {}


async def test_the_deadline_of_a_drain_counts_from_the_request_and_can_be_changed(store: JobStore) -> None:
    first = await store.put_drain("rack-a-1", deadline_s=600)
    assert first.deadline_at == first.requested_at + timedelta(seconds=600)

    await store.put_drain("rack-a-1", deadline_s=1)

    changed = (await store.drains())["rack-a-1"]
    assert changed.deadline_at is not None
    assert changed.deadline_at - changed.requested_at == timedelta(seconds=1)


async def test_the_first_proposal_is_agreed_on(store: JobStore) -> None:
    assert await store.agreed("blobs") is None

    assert await store.agree("blobs", "mine") == "mine"
    assert await store.agree("blobs", "yours") == "mine"

    assert await store.agreed("blobs") == "mine"


async def test_a_probe_leaves_no_row_that_counts(store: JobStore) -> None:
    await store.probe()
    await store.probe()

    assert await store.jobs() == []
    assert await store.leases() == {}
