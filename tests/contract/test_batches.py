"""What every job store guarantees about the order of batches, and of the jobs in one."""

from __future__ import annotations

import pytest

from raygrid.errors import InvalidRequestError
from raygrid.models import JobState
from raygrid.store import JobStore
from tests.contract.test_job_store import done, ids, lead, new, store

__all__ = ["store"]

SUBMITTED = ["t10", "t9", "t2", "t1"]


async def test_jobs_of_a_batch_come_in_the_order_of_their_submission(store: JobStore) -> None:
    """Ids, priorities and states do not change it."""
    await store.insert([new(name, priority=int(name[1:])) for name in SUBMITTED], "b1")
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("t2"), done("t9")])
    assert ids(await store.jobs(batch_id="b1")) == SUBMITTED
    assert ids(await store.jobs(batch_id="b1", state=JobState.DONE)) == ["t9", "t2"]


async def test_pages_of_a_batch_continue_after_a_job(store: JobStore) -> None:
    """Page after page gives each job once, in that order, with a state or without."""
    await store.insert([new(f"j{n * 7 % 10}") for n in range(10)], "b1")
    for state in (None, JobState.QUEUED):
        seen: list[str] = []
        while page := await store.jobs(batch_id="b1", state=state, after=seen[-1] if seen else None, limit=3):
            seen += ids(page)
        assert seen == [f"j{n * 7 % 10}" for n in range(10)]


async def test_jobs_that_are_added_later_come_behind(store: JobStore) -> None:
    """So do jobs of other batches that join; one that is submitted again keeps its place."""
    await store.insert([new("other")], "b0")
    await store.insert([new("m"), new("z")], "b1")
    await store.insert([new("z"), new("b"), new("other"), new("a"), new("b")], "b1")
    assert ids(await store.jobs(batch_id="b1")) == ["m", "z", "b", "other", "a"]
    assert ids(await store.jobs(batch_id="b0")) == ["other"]


async def test_a_refused_job_has_no_place(store: JobStore) -> None:
    """The others keep their order around it."""
    await store.insert([new("x", fingerprint="old")])
    await store.insert([new("c"), new("x", fingerprint="new"), new("a")], "b1")
    assert ids(await store.jobs(batch_id="b1")) == ["c", "a"]


async def test_a_page_after_a_job_of_another_batch_is_refused(store: JobStore) -> None:
    """Such a place has no meaning in this batch, and an empty page would look like the end."""
    await store.insert([new("a")], "b1")
    await store.insert([new("b")], "b2")
    with pytest.raises(InvalidRequestError, match="the cursor 'b' is not a job of batch b1"):
        await store.jobs(batch_id="b1", after="b")


async def test_batches_are_listed_newest_first_with_their_counts(store: JobStore) -> None:
    """Page after page gives each once; the last page has no cursor."""
    names = [f"b{n}" for n in range(5)]
    for number, name in enumerate(names):
        await store.insert([new(f"{name}-{n}") for n in range(number)], name)
    lease = await lead(store)
    await store.record("rack-a", lease.term, [done("b4-0")])
    assert await store.batches(limit=9) == (await store.batches(limit=5))
    first = await store.batches(limit=3)
    assert [each.batch_id for each in first.batches] == ["b4", "b3", "b2"]
    assert first.more
    assert first.batches[0] == await store.batch("b4")
    assert (first.batches[0].total, first.batches[0].counts[JobState.DONE]) == (4, 1)
    rest = await store.batches(after="b2", limit=3)
    assert [each.batch_id for each in rest.batches] == ["b1", "b0"]
    assert not rest.more
    assert (await store.batches(after="b0")).batches == []
    with pytest.raises(InvalidRequestError, match="the cursor 'unknown' is not a batch"):
        await store.batches(after="unknown")


async def test_a_page_of_large_batches_ends_early(store: JobStore) -> None:
    """The cost of a page is bounded by the jobs that are counted, not by the number of batches alone."""
    for name in ("b0", "b1", "b2", "b3"):
        await store.insert([new(f"{name}-{n}") for n in range(3)], name)
    page = await store.batches(limit=4, most_jobs=5)
    assert ([each.batch_id for each in page.batches], page.more) == (["b3", "b2"], True)
    page = await store.batches(after="b2", limit=4, most_jobs=1)
    assert ([each.batch_id for each in page.batches], page.more) == (["b1"], True)
    page = await store.batches(after="b1", limit=4, most_jobs=1)
    assert ([each.batch_id for each in page.batches], page.more) == (["b0"], False)


async def test_a_job_names_its_batches(store: JobStore) -> None:
    """In the order in which it joined them; a job of no batch has none."""
    await store.insert([new("alone")])
    await store.insert([new("a"), new("b")], "z")
    await store.insert([new("b"), new("c")], "y")
    found = await store.batches_of(["a", "b", "c", "alone", "unknown"])
    assert found == {"a": ["z"], "b": ["z", "y"], "c": ["y"]}
    assert await store.batches_of([]) == {}
