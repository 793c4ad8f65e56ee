"""The calls of leaders and parents to a node agent (`AgentCalls`), passed on to the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, Definition
from raygrid.node.agent import NodeAgent
from raygrid.settings.model import GridSettings
from raygrid.transport.ports import NodeReply


class AgentService:
    """Implements `AgentCalls` on one agent."""

    def __init__(self, agent: NodeAgent, hidden: Callable[[GridSettings], Sequence[str]] = lambda _: ()) -> None:
        self._agent = agent
        self._hidden = hidden  # what sandboxes hide with given settings

    async def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        """See `NodeCalls.start`."""
        self._agent.start(term, orders, definitions)

    async def stop(self, term: int, attempts: Sequence[AttemptId], recalled: Sequence[AttemptId] = ()) -> None:
        """See `NodeCalls.stop`."""
        self._agent.stop(term, attempts, recalled)

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        """See `NodeCalls.reports`."""
        return await self._agent.reports(term, after, settled, wait_s)

    async def configure(self, term: int, settings: GridSettings) -> None:
        """See `NodeCalls.configure`. A restarted agent begins with older settings, and the leader sends them again."""
        hidden = await asyncio.to_thread(self._hidden, settings)
        self._agent.configure(term, dict(settings.pricers), settings.node, settings.deployed_at, hidden)

    async def results(self, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """See `CacheCalls.results`."""
        return await asyncio.to_thread(self._agent.results, key, job_ids)
