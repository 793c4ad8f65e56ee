"""A leader's writes, and the order of what follows them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.core.lease import Lease
from raygrid.leader.outbox import Outbox
from raygrid.models import JobState, JobUpdate
from tests.simulation.memory_store import MemoryStore

AT = datetime(2026, 3, 1, tzinfo=UTC)
LEASE = Lease("rack-a", "me", 1, AT)


class Takes(MemoryStore):
    """A job store that takes every write."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[str] = []

    async def record(self, group_id: str, term: int, updates: Sequence[JobUpdate]) -> bool:
        self.taken += [update.job_id for update in updates]
        return True


def change(job_id: str, state: JobState) -> JobUpdate:
    return JobUpdate(job_id, state, AttemptCounts(1), "n1", AT)


async def test_a_leader_whose_change_feed_breaks_steps_down() -> None:
    """Later writes would not be announced, so another leader begins with what the store has."""
    store = Takes()
    stale = asyncio.Event()

    def breaks(updates: Sequence[JobUpdate], surely: bool) -> None:
        raise KeyError(updates[0].job_id)

    outbox = Outbox(store, LEASE, breaks, stale.set)
    outbox.put([change("job", JobState.RUNNING)])
    async with asyncio.timeout(10):
        await outbox.run()
    assert stale.is_set()
    assert store.taken == ["job"]


async def test_a_job_that_ends_at_once_costs_one_write() -> None:
    """The start is not recorded if the end comes in a moment; otherwise it is recorded soon."""
    store = Takes()
    written: asyncio.Queue[Sequence[JobUpdate]] = asyncio.Queue()
    outbox = Outbox(store, LEASE, lambda updates, surely: written.put_nowait(updates), lambda: None)
    running = asyncio.create_task(outbox.run())
    outbox.put([change("short", JobState.RUNNING)])
    await asyncio.sleep(0)  # the outbox has seen it
    outbox.put([change("short", JobState.DONE)])
    async with asyncio.timeout(10):
        assert [update.state for update in await written.get()] == [JobState.DONE]
        outbox.put([change("long", JobState.RUNNING)])
        assert [update.state for update in await written.get()] == [JobState.RUNNING]
    running.cancel()
