"""A group's load as its leader tells it: what parents route by and people look at.

Parents ask many times a second and little changes in between, so what is said of a node is kept until it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from raygrid.core.placement import NodeRecord, mean_duration_s
from raygrid.models import GroupCapacity, NodeView


class _Part(NamedTuple):
    """A node's part of its group's load."""

    slots: int  # for new attempts
    used: int
    leaving: int  # attempts on a node that takes no new ones
    view: NodeView


class Load:
    """The load of a group.

    Args:
        group_id: the group.
        nodes: its nodes; read whenever they are looked at again.
    """

    def __init__(self, group_id: str, nodes: Mapping[str, NodeRecord]) -> None:
        self._group_id = group_id
        self._nodes = nodes
        self._parts: dict[str, _Part] = {}
        self._touched: set[str] = set()
        self._on_probation: set[str] = set()  # their state changes with time alone

    def touch(self, node_id: str) -> None:
        """A node has come, gone or changed."""
        self._touched.add(node_id)

    def capacity(self, site: str | None, quota: int | None, queued: int, now: float) -> GroupCapacity:
        """What the leader tells of the group.

        A node that takes no new attempts (unhealthy or draining) adds no slots; what still runs there counts as running
        and towards the quota, but takes none of the other nodes' slots.
        """
        for node_id in self._touched | self._on_probation:
            self._look_at(node_id, now)
        self._touched.clear()
        parts = [self._parts[node_id] for node_id in self._nodes]
        slots, leaving = sum(part.slots for part in parts), sum(part.leaving for part in parts)
        return GroupCapacity(
            group_id=self._group_id,
            slots=slots if quota is None else max(0, min(slots, quota - leaving)),
            running=sum(part.used for part in parts),
            queued=queued,
            nodes=tuple(part.view for part in parts),
            site=site,
            mean_s=mean_duration_s(node for node in self._nodes.values() if _is_usable(node)),
            leaving=leaving,
        )

    def _look_at(self, node_id: str, now: float) -> None:
        node = self._nodes.get(node_id)
        self._on_probation.discard(node_id)
        if node is None:
            self._parts.pop(node_id, None)
            return
        if node.probation_until is not None:
            self._on_probation.add(node_id)
        used, usable = node.used, _is_usable(node)
        view = _view(self._group_id, node, now)
        self._parts[node_id] = _Part(node.slots if usable else 0, used, 0 if usable else used, view)


def _is_usable(node: NodeRecord) -> bool:
    return node.healthy and not node.draining


def _view(group_id: str, node: NodeRecord, now: float) -> NodeView:
    deadline = node.drain_deadline_at
    return NodeView(
        node.node_id,
        group_id,
        node.slots,
        node.used,
        node.state(now),
        node.why,
        node.address,
        node.traffic,
        None if deadline is None else datetime.fromtimestamp(deadline, UTC),
    )
