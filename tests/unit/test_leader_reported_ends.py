"""Ends of jobs that a leader reports in full, so that parents need no look into the store: only what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime

import pytest

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.leader.dispatch import FEW, Leader
from raygrid.models import (
    AttemptId,
    AttemptReport,
    BlobSlice,
    DoneJob,
    JobSpec,
    JobState,
    JobUpdate,
    NewJob,
    NodeState,
    Outcome,
)
from raygrid.settings.model import GridSettings
from raygrid.transport.ports import JobChange, NodeCalls, NodeReply
from tests.simulation.memory_store import MemoryStore

AT = datetime(2026, 3, 1, tzinfo=UTC)
RESULT = BlobSlice("results/1", 0, 9, "digest")


class AgentOfItsOwn:
    """A node with two slots and nothing to do, that answers at once."""

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        await asyncio.sleep(wait_s)
        return NodeReply(NodeState("n1", "life", 2), (), 1)

    async def start(self, term: int, orders: Sequence[object], definitions: Sequence[object] = ()) -> None:
        """Take orders."""

    async def stop(self, term: int, attempts: Sequence[AttemptId], recalled: Sequence[AttemptId] = ()) -> None:
        """Stop attempts."""

    async def configure(self, term: int, settings: GridSettings) -> None:
        """Follow settings."""


class OneNode:
    """A rack with one node, which is found once the test allows it."""

    def __init__(self) -> None:
        self.is_there = False
        self.node = AgentOfItsOwn()

    async def nodes(self) -> Mapping[str, NodeCalls]:
        return {"n1": self.node} if self.is_there else {}


class NoNodes:
    """A rack in which nothing runs."""

    async def nodes(self) -> Mapping[str, NodeCalls]:
        return {}


def end(job_id: str, exit_code: int = 0) -> JobUpdate:
    report = AttemptReport(AttemptId(job_id, 1), Outcome.EXITED, exit_code, result=RESULT)
    state, reason = (JobState.FAILED, "exit_code") if exit_code else (JobState.DONE, None)
    return JobUpdate(job_id, state, AttemptCounts(1), "n1", AT, reason, report)


@pytest.fixture
async def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def leader(store: MemoryStore) -> AsyncIterator[Leader]:
    lease = await store.acquire_lease("a", "a/0", 60.0)
    assert lease is not None
    settings = GridSettings.model_validate({"pricers": {"p": {"command": "cat {input}", "version": "1"}}})
    leads = Leader(lease, settings, store, NoNodes(), lambda: None)
    await leads.open()
    yield leads
    await leads.close()


async def reported(leader: Leader, store: MemoryStore, group_id: str, *updates: JobUpdate) -> tuple[JobChange, ...]:
    """What parents get of ends of jobs that the store has as that group's."""
    specs = [JobSpec(update.job_id, "p", "1", BlobSlice("", 0, 0, "")) for update in updates]
    await store.insert([NewJob(spec, group_id, "f") for spec in specs])
    leader._outbox.put(updates)
    await leader.settle(10)
    epoch = (await leader.changes("", 0, 0)).epoch
    return (await leader.changes(epoch, 0, 0)).changes


async def test_a_success_is_reported_in_full(leader: Leader, store: MemoryStore) -> None:
    [change] = await reported(leader, store, "a", end("j"))
    assert change.done == DoneJob("j", "a", "n1", RESULT, 0)
    kept = (await store.get(["j"]))["j"]
    assert (kept.state, kept.result, kept.node_id) == (JobState.DONE, RESULT, "n1")


async def test_an_end_that_the_store_did_not_take_is_not_reported(leader: Leader, store: MemoryStore) -> None:
    """The job was moved to another group, where it runs again; reported as done it would have two visible results."""
    [change] = await reported(leader, store, "b", end("j"))
    assert change.done is None
    assert (await store.get(["j"]))["j"].state is JobState.QUEUED


async def test_failures_and_crowds_are_read_from_the_store(leader: Leader, store: MemoryStore) -> None:
    """A failure has more members; and many waiting requests share one query."""
    assert [change.done for change in await reported(leader, store, "a", end("j", exit_code=3))] == [None]
    many = await reported(leader, store, "a", *(end(f"j{number}") for number in range(FEW + 1)))
    assert len(many) == FEW + 2
    assert [change.done for change in many] == [None] * len(many)


async def test_parents_are_notified_at_once_of_the_first_node(store: MemoryStore) -> None:
    """A parent that waits at a new leader is answered when a node reports, though no job has changed."""
    lease = await store.acquire_lease("a", "a/0", 60.0)
    assert lease is not None
    settings = GridSettings.model_validate({"pricers": {"p": {"command": "cat {input}", "version": "1"}}})
    rack = OneNode()
    leader = Leader(lease, settings, store, rack, lambda: None)
    await leader.open()
    try:
        first = await leader.changes("", 0, 0)
        assert first.capacity.nodes == ()
        waiting = asyncio.create_task(leader.changes(first.epoch, first.last, 600))
        await asyncio.sleep(0)
        rack.is_there = True
        async with asyncio.timeout(30):
            assert [node.node_id for node in (await waiting).capacity.nodes] == ["n1"]
    finally:
        await leader.close()
