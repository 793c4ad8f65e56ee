"""A group's load as its leader tells it: what parents route by and people look at."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from raygrid.core.placement import NodeRecord, mean_duration_s
from raygrid.models import GroupCapacity, NodeView


def capacity_of(
    group_id: str, site: str | None, nodes: Collection[NodeRecord], quota: int | None, queued: int, now: float
) -> GroupCapacity:
    """The load of a group.

    A node that takes no new attempts (unhealthy or draining) adds no slots; what still runs there counts as running
    and towards the quota, but takes none of the other nodes' slots.
    """
    usable = [node for node in nodes if node.healthy and not node.draining]
    slots = sum(node.slots for node in usable)
    running = sum(node.used for node in nodes)
    leaving = running - sum(node.used for node in usable)
    return GroupCapacity(
        group_id=group_id,
        slots=slots if quota is None else max(0, min(slots, quota - leaving)),
        running=running,
        queued=queued,
        nodes=tuple(_view(group_id, node, now) for node in nodes),
        site=site,
        mean_s=mean_duration_s(usable),
        leaving=leaving,
    )


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
