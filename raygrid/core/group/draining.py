"""Which nodes are being drained, and what that asks for.

A drain is the wish of ops, by node name: it outlives the node's record here, so that a restarted agent gets no work.
Once its deadline is over, whatever the node still holds is to be stopped and run elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from raygrid.core.group.events import NodeDraining
from raygrid.core.group.placement import NodeRecord


class Drains:
    """The drains that a group has been told of, whether it has those nodes or not."""

    def __init__(self) -> None:
        self._deadlines: dict[str, float | None] = {}

    def told(self, event: NodeDraining, node: NodeRecord | None) -> None:
        """Remember a wish, or that it is over, and let the node's record follow if there is one."""
        if event.draining:
            self._deadlines[event.node_id] = event.deadline_at
        else:
            self._deadlines.pop(event.node_id, None)
        if node is not None:
            self.mark(node)

    def mark(self, node: NodeRecord) -> None:
        """Write into a node's record whether it is being drained."""
        node.draining = node.node_id in self._deadlines
        node.drain_deadline_at = self._deadlines.get(node.node_id)


def overdue(nodes: Iterable[NodeRecord], now: float) -> Iterator[NodeRecord]:
    """The draining nodes whose deadline is over and that still hold attempts."""
    for node in nodes:
        if node.drain_deadline_at is not None and node.drain_deadline_at <= now and node.held:
            yield node
