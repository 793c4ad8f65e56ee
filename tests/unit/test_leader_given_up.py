"""An order that was withdrawn before it was sent is never sent, for every way to lose a node or to wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import pytest

from raygrid.core.group.events import AttemptOrder
from raygrid.errors import UnavailableError, UnreachableError
from raygrid.leader.dispatch import Leader
from raygrid.models import AttemptId, BlobSlice, Definition, JobSpec, JobState, NewJob, NodeState
from raygrid.settings.model import GridSettings
from raygrid.store import BLOBS
from raygrid.transport.ports import NodeCalls, NodeReply
from tests.simulation.memory_store import MemoryStore

JOB = JobSpec("j", "p", "1", BlobSlice("", 0, 0, ""), definition="d")
SETTINGS = GridSettings.model_validate({"pricers": {"p": {"command": "cat {input}", "version": "1"}}})


class Agent:
    """A node with one slot whose attempts never end; while `trouble` is set, its reports fail with that."""

    def __init__(self) -> None:
        self.trouble: UnavailableError | None = None
        self.handed: list[AttemptId] = []

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        await asyncio.sleep(0.01)
        if self.trouble is not None:
            raise self.trouble
        return NodeReply(NodeState("n1", "life", 1, tuple(self.handed), marker="m"), (), 1)

    async def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        self.handed += [order.attempt for order in orders]

    async def stop(self, term: int, attempts: Sequence[AttemptId], recalled: Sequence[AttemptId] = ()) -> None:
        """Stop attempts."""

    async def configure(self, term: int, settings: GridSettings) -> None:
        """Follow settings."""


class OneNode:
    """A rack with one node."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    async def nodes(self) -> Mapping[str, NodeCalls]:
        return {"n1": self.agent}


class SlowStore(MemoryStore):
    """Answers each call at once except reads of definitions, which wait until the test sets `answer`."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def definitions(self, digests: Sequence[str]) -> dict[str, Definition]:
        self.asked += 1
        await asyncio.shield(self.answer)
        return await super().definitions(digests)


class Scene:
    """A leader, its node and its store; a test moves the leader's clock forward with `skipped_s`."""

    def __init__(self, store: SlowStore) -> None:
        self.store, self.agent = store, Agent()
        self.skipped_s = 0.0

    def clock(self) -> float:
        return 1_000.0 + self.skipped_s + asyncio.get_running_loop().time()

    async def open(self) -> None:
        await self.store.agree(BLOBS, "m")
        await self.store.put_definitions([Definition("d", "{}")])
        await self.store.insert([NewJob(JOB, "a", "f")])
        lease = await self.store.acquire_lease("a", "a/0", 60.0)
        assert lease is not None
        self.leader = Leader(lease, SETTINGS, self.store, OneNode(self.agent), lambda: None, self.clock)
        await self.leader.open()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene(SlowStore())
    await scene.open()
    yield scene
    await scene.leader.close()


@pytest.mark.parametrize("trouble", [UnavailableError("no answer"), UnreachableError("its process has ended")])
@pytest.mark.parametrize("store_is_away", [True, False])
async def test_an_order_that_waited_for_the_store_while_its_node_was_lost_is_not_sent(
    scene: Scene, trouble: UnavailableError, *, store_is_away: bool
) -> None:
    """The job was handed to the node again meanwhile: two attempts there would exceed its slots."""
    await scene.until(lambda: scene.store.asked == 1)  # j/1 is ordered, and its definition is being read
    scene.agent.trouble = trouble
    if not isinstance(trouble, UnreachableError):
        scene.skipped_s += SETTINGS.placement.node_timeout_s + 1
    await scene.until(lambda: scene.leader._state.nodes == {})  # the node is lost; the job waits again
    scene.agent.trouble = None
    await scene.until(lambda: scene.leader._state.is_held("n1", AttemptId("j", 2)))
    assert scene.agent.handed == []

    if store_is_away:
        scene.store.answer.set_exception(UnavailableError("the job store did not answer"))
    else:
        scene.store.answer.set_result(None)

    await scene.until(lambda: scene.agent.handed != [])
    assert scene.agent.handed == [AttemptId("j", 2)]
    await scene.until(lambda: scene.leader._state.nodes["n1"].held[AttemptId("j", 2)] <= scene.clock())
    await scene.leader.settle(10)
    assert (await scene.store.get(["j"]))["j"].state is JobState.RUNNING
    assert list(scene.leader._state.nodes["n1"].held) == [AttemptId("j", 2)]
