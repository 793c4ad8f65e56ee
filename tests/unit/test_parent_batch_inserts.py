"""Requests that add to the same batch share transactions while one is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from raygrid.errors import ConflictError, UnavailableError
from raygrid.models import BlobSlice, JobSpec, NewJob
from raygrid.parent.batch_inserts import MOST_JOBS, BatchInserts
from raygrid.store.port import Inserted
from tests.simulation.memory_store import MemoryStore


class SlowStore(MemoryStore):
    """A store whose writes wait until they are let go; it notes how many jobs each has."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.writes: list[int] = []

    async def insert(
        self, new_jobs: Sequence[NewJob], batch_id: str | None = None, batch_owner: str = ""
    ) -> list[Inserted]:
        """Insert jobs once writes may go."""
        self.writes.append(len(new_jobs))
        await self.go.wait()
        return await super().insert(new_jobs, batch_id, batch_owner)


@pytest.fixture
def store() -> SlowStore:
    return SlowStore()


def job(name: str, fingerprint: str = "f", owner: str = "desk") -> NewJob:
    return NewJob(JobSpec(name, "lines", "1", BlobSlice("", 0, 0, ""), owner=owner), "rack-a", fingerprint)


async def put(inserts: BatchInserts, *requests: Sequence[NewJob], owner: str = "desk") -> list[asyncio.Task[object]]:
    """Begin to insert each request, in this order."""
    tasks: list[asyncio.Task[object]] = []
    for jobs in requests:
        tasks.append(asyncio.ensure_future(inserts.insert(jobs, "night", owner)))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_requests_that_arrive_during_a_write_share_the_next(store: SlowStore) -> None:
    """Each gets the answers to its own jobs, in their order."""
    inserts = BatchInserts(store)
    requests = [[job(f"{letter}{number}") for number in range(3)] for letter in "abcd"]
    requests.append([job("a0"), job("a1", "other"), job("e2")])
    tasks = await put(inserts, *requests)
    store.go.set()
    answers = await asyncio.gather(*tasks)
    assert store.writes == [3, 12]
    assert [[each.created for each in found] for found in answers[:4]] == [[True] * 3] * 4  # type: ignore[attr-defined]
    attached, conflicting, created = answers[4]  # type: ignore[misc]
    assert (attached.created, attached.conflict) == (False, False)  # type: ignore[has-type]
    assert conflicting.conflict  # type: ignore[has-type]
    assert created.created  # type: ignore[has-type]
    await inserts.close()


async def test_owners_do_not_share_a_write(store: SlowStore) -> None:
    """The batch belongs to the first; the other is refused, and the first's later requests are not."""
    inserts = BatchInserts(store)
    own = await put(inserts, [job("a")], [job("b")])
    others = await put(inserts, [job("x", owner="other")], owner="other")
    store.go.set()
    await asyncio.gather(*own)
    with pytest.raises(ConflictError):
        await others[0]
    await inserts.close()


async def test_a_large_request_waits_for_no_other(store: SlowStore) -> None:
    """It has a transaction of its own."""
    inserts = BatchInserts(store)
    tasks = await put(inserts, [job("a")], [job(f"{number}") for number in range(MOST_JOBS + 1)])
    assert store.writes == [1, MOST_JOBS + 1]
    store.go.set()
    await asyncio.gather(*tasks)
    await inserts.close()


async def test_a_write_whose_callers_have_gone_is_completed(store: SlowStore) -> None:
    """The parent may have begun to store the jobs when a client gives up; nothing is left behind."""
    inserts = BatchInserts(store)
    tasks = await put(inserts, [job("a")], [job("b")])
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    store.go.set()
    await inserts.close()
    assert set(await store.get(["a", "b"])) == {"a", "b"}
    with pytest.raises(UnavailableError):
        await inserts.insert([job("c")], "night", "desk")


async def test_a_batch_without_writes_is_forgotten(store: SlowStore) -> None:
    """A parent sees many batches in its life."""
    store.go.set()
    inserts = BatchInserts(store)
    await asyncio.gather(*await put(inserts, [job("a")], [job("b")]))
    await inserts.insert([job("c")], "night", "desk")
    assert not inserts._writes
    await inserts.close()
