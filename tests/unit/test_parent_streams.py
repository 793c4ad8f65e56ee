"""Streams of events read the job store only when something has changed for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest

from raygrid.core.access import ALL_ROLES, LOCAL, Caller, digest_of
from raygrid.models import BlobSlice, JobSpec, JobState, NewJob, StoredJob
from raygrid.parent.http import streams
from raygrid.parent.keys import KeyRing
from raygrid.parent.service import Parent
from raygrid.parent.waiters import Waiters
from raygrid.transport.ports import JobChange
from tests.simulation.memory_store import MemoryStore


class WatchedParent:
    """The parts of a parent that a stream uses; it counts how often a job is looked at."""

    def __init__(self, store: MemoryStore) -> None:
        self.waiters, self.store, self.looks = Waiters(), store, 0
        self.keys = KeyRing(store, ())

    async def job(self, job_id: str) -> StoredJob:
        self.looks += 1
        return (await self.store.get([job_id]))[job_id]


async def parent_with(job_id: str) -> WatchedParent:
    store = MemoryStore()
    await store.open()
    await store.insert([NewJob(JobSpec(job_id, "p", "1", BlobSlice("", 0, 2, "d"), inline=b"{}"), "rack-a", "f")])
    return WatchedParent(store)


async def test_the_stream_of_one_job_is_not_woken_by_changes_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many other jobs change, its stream does not look; its own change wakes it."""
    monkeypatch.setattr(streams, "LOOK_AGAIN_S", 600.0)
    monkeypatch.setattr(streams, "PAUSE_S", 0.0)
    parent = await parent_with("mine")
    received: list[bytes] = []

    async def follow(events: AsyncIterator[bytes]) -> None:
        async for event in events:
            received.append(event)

    following = asyncio.create_task(follow(streams.job_events(cast(Parent, parent), LOCAL, "mine", 0, 600.0)))
    async with asyncio.timeout(60):
        while not received:
            await asyncio.sleep(0)
        for number in range(100):
            parent.waiters.changed(JobChange(f"{number}-{other}", JobState.DONE) for other in range(100))
            for _ in range(5):
                await asyncio.sleep(0)
        assert parent.looks == 1
        parent.waiters.changed([JobChange("mine", JobState.RUNNING)])
        while parent.looks < 2:
            await asyncio.sleep(0)
    following.cancel()


@pytest.mark.parametrize("kind", ["job", "batch", "results"])
async def test_a_stream_ends_with_the_key_of_its_reader(kind: str) -> None:
    """It gives nothing that has changed since the key was revoked."""
    parent = await parent_with("mine")
    await parent.store.insert([NewJob(JobSpec("other", "p", "1", BlobSlice("", 0, 2, "d")), "rack-a", "f")], "night")
    reader = Caller("reader", "desk", ALL_ROLES)
    await parent.store.add_key(reader, digest_of("x"), "boss")
    await parent.keys.read()
    as_parent = cast(Parent, parent)
    made: dict[str, AsyncIterator[bytes] | AsyncIterator[bytes | memoryview]] = {
        "job": streams.job_events(as_parent, reader, "mine", 0, 600.0),
        "batch": streams.batch_events(as_parent, reader, "night", 0, 600.0),
        "results": streams.batch_results(as_parent, reader, "night", 0, 600.0, "boundary"),
    }
    received: list[bytes] = []
    following = asyncio.create_task(collect(made[kind], received))
    async with asyncio.timeout(60):
        while kind != "results" and not received:
            await asyncio.sleep(0)
        await parent.store.revoke_key("reader")
        await parent.keys.read()
        await parent.store.request_cancel(["mine", "other"])
        parent.waiters.changed([JobChange("mine", JobState.CANCELLED), JobChange("other", JobState.CANCELLED)])
        await following
    assert len(received) == 1
    assert kind != "results" or b"Raygrid-End: more" in received[0]


async def collect(stream: AsyncIterator[bytes] | AsyncIterator[bytes | memoryview], into: list[bytes]) -> None:
    """Read a stream to its end."""
    async for piece in stream:
        into.append(bytes(piece))
