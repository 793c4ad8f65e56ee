"""The conversations of a leader with its group's nodes: one with each node, from when it joins until it leaves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from raygrid.core.group.events import Event, NodeLost, NodesExpected, StartAttempts, StopAttempts
from raygrid.leader.node_conversation import NodeConversation
from raygrid.settings.model import GridSettings
from raygrid.system.failure_log import log_failure
from raygrid.transport.ports import NodeCalls, NodeDiscovery

logger = logging.getLogger(__name__)

DISCOVER_S = 1.0


class NodeConversations:
    """The conversations with a group's nodes, by node. `run` ends when cancelled; the owner then closes it.

    Args:
        group_id: the group.
        discovery: finds the nodes.
        converse: makes a conversation with a node.
        on_event: takes the events `NodesExpected` and `NodeLost`.

    Attributes:
        were_found: whether the nodes were listed at least once.
    """

    def __init__(
        self,
        group_id: str,
        discovery: NodeDiscovery,
        converse: Callable[[str, NodeCalls], NodeConversation],
        on_event: Callable[[Event], None],
    ) -> None:
        self._group_id = group_id
        self._discovery = discovery
        self._converse = converse
        self._on_event = on_event
        self._by_id: dict[str, NodeConversation] = {}
        self.were_found = False

    def __contains__(self, node_id: str) -> bool:
        return node_id in self._by_id

    def __getitem__(self, node_id: str) -> NodeConversation:
        return self._by_id[node_id]

    def start(self, command: StartAttempts) -> None:
        """Hand attempts to a node; it has a conversation, because only nodes that have answered get attempts."""
        self._by_id[command.node_id].start(command.orders)

    def stop(self, command: StopAttempts) -> None:
        """Kill attempts on a node or take them back, unless it has left."""
        if command.node_id in self._by_id:
            self._by_id[command.node_id].stop(command.attempts, command.recalled)

    def configure(self, settings: GridSettings) -> None:
        """Send newer settings to all nodes."""
        for node in self._by_id.values():
            node.configure(settings)

    async def close(self) -> None:
        """Close all conversations."""
        await asyncio.gather(*(node.close() for node in self._by_id.values()))
        self._by_id.clear()

    async def run(self) -> None:
        """Follow the nodes as they join and leave."""
        while True:
            try:
                await self._discover()
            except Exception as error:
                log_failure(logger, error, "group %s: cannot list the nodes; trying again", self._group_id)
            await asyncio.sleep(DISCOVER_S)

    async def _discover(self) -> None:
        found = await self._discovery.nodes()
        if not self.were_found:
            self.were_found = True
            self._on_event(NodesExpected(tuple(found)))
        for node_id in self._by_id.keys() - found.keys():
            gone = self._by_id.pop(node_id)
            self._on_event(NodeLost(node_id))
            await gone.close()
        for node_id, link in found.items():
            known = self._by_id.get(node_id)
            if known is not None and known.link is link:
                continue
            conversation = self._by_id[node_id] = self._converse(node_id, link)
            conversation.open()
            if known is not None:
                await known.close()
