"""Limits of keys hold for requests at the same moment, and for what is still being stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from raygrid.core.access import ALL_ROLES, Caller, KeyLimits
from raygrid.errors import BusyError, TooLargeError
from raygrid.models import BlobSlice, JobSpec, NewJob
from raygrid.parent import quotas
from raygrid.parent.quotas import FORM_BYTES, Admission, Quotas
from raygrid.store.port import OwnerUsage
from tests.simulation.memory_store import MemoryStore


class CountedStore(MemoryStore):
    """A store whose usage the test sets, and whose answers wait until the test lets them go."""

    def __init__(self) -> None:
        super().__init__()
        self.used = OwnerUsage(0, 0)
        self.reads = 0
        self.go = asyncio.Event()
        self.go.set()

    async def usage(self, owner: str) -> OwnerUsage:
        """What the owner used when this was asked."""
        self.reads += 1
        used = self.used
        await self.go.wait()
        return used


@pytest.fixture
def store() -> CountedStore:
    return CountedStore()


def caller(**limits: int) -> Caller:
    return Caller("key", "desk", ALL_ROLES, None, KeyLimits(**limits))


def jobs(count: int, size: int = 0) -> list[NewJob]:
    return [
        NewJob(JobSpec(f"j{number}", "p", "1", BlobSlice("", 0, size, "")), "rack-a", "f") for number in range(count)
    ]


async def stream(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        await asyncio.sleep(0)
        yield bytes(size)


async def admitted(found: Quotas, who: Caller, count: int, size: int = 0) -> Admission:
    admission = await found.admit(who, jobs(count, size))
    assert admission is not None
    return admission


async def test_requests_at_the_same_moment_cannot_exceed_a_limit_together(store: CountedStore) -> None:
    """Forty submits of one job each, and one look at the store."""
    found, who = Quotas(store), caller(queued_jobs=2)
    store.go.clear()
    asked = [asyncio.create_task(found.admit(who, jobs(1))) for _ in range(40)]
    await asyncio.sleep(0.01)
    store.go.set()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(each, Admission) for each in answers) == 2
    assert sum(isinstance(each, BusyError) for each in answers) == 38
    assert store.reads == 1


async def test_what_is_being_stored_counts_after_the_next_look(
    store: CountedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store does not show it yet. What was stored before a look began counts once."""
    monkeypatch.setattr(quotas, "READ_EVERY_S", -1.0)  # each request looks
    found, who = Quotas(store), caller(queued_jobs=2)
    first = await admitted(found, who, 1)
    second = await admitted(found, who, 1)
    with pytest.raises(BusyError, match="has 2 unfinished jobs"):
        await found.admit(who, jobs(1))
    store.used = OwnerUsage(2, 0)
    first.stored()
    second.stored()
    store.used = OwnerUsage(1, 0)  # one has ended
    (await admitted(found, who, 1)).dropped()
    await admitted(found, who, 1)
    with pytest.raises(BusyError):
        await found.admit(who, jobs(1))


async def test_what_is_stored_while_the_store_is_read_counts(store: CountedStore) -> None:
    """The answer may not have it."""
    found, who = Quotas(store), caller(queued_jobs=2)
    first = await admitted(found, who, 1)
    await asyncio.sleep(quotas.READ_EVERY_S * 1.1)
    store.go.clear()
    asked = asyncio.create_task(found.admit(who, jobs(2)))
    while store.reads < 2:
        await asyncio.sleep(0.001)
    first.stored()
    store.go.set()
    with pytest.raises(BusyError, match="has 1 unfinished job"):
        await asked


async def test_uploads_at_the_same_moment_cannot_exceed_a_limit_together(store: CountedStore) -> None:
    """Twelve of 900 bytes each, and a limit of 1,000."""
    found, who = Quotas(store), caller(bytes=1_000)

    async def upload() -> int:
        admission = await found.admit_upload(who)
        assert admission is not None
        size = sum([len(chunk) async for chunk in admission.limited(stream(300, 300, 300))])
        admission.stored()
        return size

    answers = await asyncio.gather(*(upload() for _ in range(12)), return_exceptions=True)
    assert sum(each for each in answers if isinstance(each, int)) <= 1_000
    assert all(isinstance(each, int | TooLargeError) for each in answers)


async def test_uploads_one_after_another_count(store: CountedStore) -> None:
    """Also before the store is read again."""
    found, who = Quotas(store), caller(bytes=1_000)
    first = await found.admit_upload(who)
    assert first is not None
    assert [len(chunk) async for chunk in first.limited(stream(900))] == [900]
    first.stored()
    second = await found.admit_upload(who)
    assert second is not None
    with pytest.raises(TooLargeError, match="of which 100 are left"):
        [chunk async for chunk in second.limited(stream(50, 900))]


async def test_a_form_is_refused_before_it_is_read(store: CountedStore) -> None:
    """Its files would be left behind. A form is larger than its files, so some bytes more are allowed."""
    found = Quotas(store)
    with pytest.raises(TooLargeError):
        await found.admit_upload(caller(bytes=1_000), 1_001 + FORM_BYTES)
    store.used = OwnerUsage(0, 600)
    with pytest.raises(BusyError):
        await Quotas(store).admit_upload(caller(bytes=1_000), 500 + FORM_BYTES)
    store.used = OwnerUsage(3, 0)
    with pytest.raises(BusyError):
        await Quotas(store).admit_upload(caller(queued_jobs=3), 10)
    form = await found.admit_upload(caller(bytes=1_000), 1_100)
    assert form is not None
    assert [len(chunk) async for chunk in form.limited(stream(1_100), FORM_BYTES)] == [1_100]
    form.dropped()
    await admitted(found, caller(bytes=1_000), 1, 1_000)


async def test_a_form_without_a_size_is_stopped_at_the_limit(store: CountedStore) -> None:
    form = await Quotas(store).admit_upload(caller(bytes=1_000), 0)
    assert form is not None
    with pytest.raises(TooLargeError):
        [chunk async for chunk in form.limited(stream(FORM_BYTES, 1_001), FORM_BYTES)]


async def test_a_key_without_limits_is_not_counted(store: CountedStore) -> None:
    found = Quotas(store)
    assert await found.admit(caller(), jobs(3)) is None
    assert await found.admit_upload(caller(requests_per_minute=3), 10**9) is None
    assert store.reads == 0
