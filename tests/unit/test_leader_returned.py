"""A job that ended at a leader while it was another group's is adopted when it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from raygrid.leader.dispatch import Leader
from raygrid.models import BlobSlice, JobSpec, JobState, NewJob
from raygrid.settings.model import GridSettings
from raygrid.transport.ports import NodeCalls
from tests.simulation.memory_store import MemoryStore

JOB = JobSpec("j", "p", "1", BlobSlice("", 0, 0, ""))


class NoNodes:
    """A rack in which nothing runs."""

    async def nodes(self) -> Mapping[str, NodeCalls]:
        return {}


async def leading(store: MemoryStore) -> Leader:
    """A leader of group a."""
    lease = await store.acquire_lease("a", "a/0", 60.0)
    assert lease is not None
    settings = GridSettings.model_validate({"pricers": {"p": {"command": "cat {input}", "version": "1"}}})
    leader = Leader(lease, settings, store, NoNodes(), lambda: None)
    await leader.open()
    return leader


async def written(leader: Leader) -> None:
    await leader.settle(10)


async def test_a_job_that_comes_back_is_adopted_though_it_has_ended_here() -> None:
    """The store refused to end it, as it was another group's. If it were skipped, it would wait for ever."""
    store = MemoryStore()
    await store.insert([NewJob(JOB, "b", "f")])
    leader = await leading(store)
    try:
        leader.cancel(["j"])  # by a parent for which it is here
        await written(leader)
        assert (await store.get(["j"]))["j"].state is JobState.QUEUED

        await store.move("b", {"j": "a"})

        async with asyncio.timeout(20):
            while (await store.get(["j"]))["j"].state is JobState.QUEUED:
                leader.cancel(["j"])  # done as soon as it has been adopted
                await asyncio.sleep(0.02)
    finally:
        await leader.close()
