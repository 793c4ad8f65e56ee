"""The nodes that are being drained.

A drain is a request of operators and belongs to the node's name. It outlives the node's record, so that a restarted
agent gets no work. After the deadline, attempts that the node still holds are stopped and run elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from raygrid.core.group.events import NodeDraining
from raygrid.core.group.placement import NodeRecord


class Drains:
    """The current drains, including those of nodes that the group does not have."""

    def __init__(self) -> None:
        self._deadlines: dict[str, float | None] = {}

    def apply(self, event: NodeDraining, node: NodeRecord | None) -> None:
        """Record the start, change or end of a drain, also in the node's record if there is one."""
        if event.draining:
            self._deadlines[event.node_id] = event.deadline_at
        else:
            self._deadlines.pop(event.node_id, None)
        if node is not None:
            self.mark(node)

    def mark(self, node: NodeRecord) -> None:
        """Set the drain fields of a node's record."""
        node.draining = node.node_id in self._deadlines
        node.drain_deadline_at = self._deadlines.get(node.node_id)


def overdue(nodes: Iterable[NodeRecord], now: float) -> Iterator[NodeRecord]:
    """Draining nodes that still hold attempts after their deadline."""
    for node in nodes:
        if node.drain_deadline_at is not None and node.drain_deadline_at <= now and node.held:
            yield node
