"""A group's load as its leader reports it, for routing and for status pages.

Parents ask many times a second and little changes in between, so the part of each node and the sums over all nodes are
kept until a node changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from raygrid.core.group.placement import NodeRecord
from raygrid.models import GroupCapacity, NodeView


class _Part(NamedTuple):
    """A node's part of its group's load."""

    node: NodeRecord
    slots: int  # for new attempts
    used: int
    leaving: int  # attempts on a node that takes no new ones
    known: int  # slots for new attempts on a node whose mean duration of attempts is known


class GroupLoad:
    """The load of a group and its nodes."""

    def __init__(self, group_id: str, nodes: Mapping[str, NodeRecord]) -> None:
        self._group_id = group_id
        self._nodes = nodes
        self._parts: dict[str, _Part] = {}
        self._slots = self._used = self._leaving = self._known = 0  # sums over all parts
        self._busy_s: dict[str, float] = {}  # the known slots of a node times its mean; in the order of the nodes
        self._views: dict[str, NodeView] = {}  # in the order of the nodes
        self._in_order = True
        self._touched: set[str] = set()
        self._on_probation: set[str] = set()  # their state changes with time

    def touch(self, node_id: str) -> None:
        """Mark a node that was added, removed or changed."""
        self._touched.add(node_id)

    def capacity(self, site: str | None, quota: int | None, queued: int, now: float) -> GroupCapacity:
        """Compute the group's load.

        A node that takes no new attempts (unhealthy or draining) adds no slots. Its attempts count as running and
        towards the quota, but use none of the other nodes' slots.
        """
        for node_id in self._touched | self._on_probation:
            self._look_at(node_id, now)
        self._touched.clear()
        if not self._in_order:
            self._busy_s = {node_id: self._busy_s[node_id] for node_id in self._nodes}
            self._views = {node_id: self._views[node_id] for node_id in self._nodes}
            self._in_order = True
        return GroupCapacity(
            group_id=self._group_id,
            slots=self._slots if quota is None else max(0, min(self._slots, quota - self._leaving)),
            running=self._used,
            queued=queued,
            nodes=tuple(self._views.values()),
            site=site,
            mean_s=sum(self._busy_s.values()) / self._known if self._known else None,
            leaving=self._leaving,
        )

    def _look_at(self, node_id: str, now: float) -> None:
        node = self._nodes.get(node_id)
        self._on_probation.discard(node_id)
        before = self._parts.get(node_id)
        self._add(before, -1)
        if node is None:
            self._parts.pop(node_id, None)
            self._busy_s.pop(node_id, None)
            self._views.pop(node_id, None)
            return
        if before is None or before.node is not node:
            self._in_order = False
        if node.probation_until is not None:
            self._on_probation.add(node_id)
        used, usable, mean_s = node.used, node.healthy and not node.draining, node.mean_s
        known = node.slots if usable and mean_s is not None else 0
        part = _Part(node, node.slots if usable else 0, used, 0 if usable else used, known)
        self._parts[node_id] = part
        self._add(part, 1)
        self._busy_s[node_id] = known * (mean_s or 0.0)
        self._views[node_id] = _view(self._group_id, node, now)

    def _add(self, part: _Part | None, times: int) -> None:
        if part is not None:
            self._slots += times * part.slots
            self._used += times * part.used
            self._leaving += times * part.leaving
            self._known += times * part.known


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
        node.sandbox,
    )
