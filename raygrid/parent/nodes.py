"""Starts and ends drains of nodes.

A drain is recorded in the job store, where the leaders find it. An answer here shows what was requested, before the
leader has acted on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from raygrid.errors import NodeNotFoundError
from raygrid.models import GroupCapacity, NodeView
from raygrid.store import JobStore

NAMES_SHOWN = 20


class Nodes:
    """The nodes of all groups, including groups with a silent leader, and the drains in the store."""

    def __init__(self, store: JobStore, groups: Callable[[], list[GroupCapacity]]) -> None:
        self._store = store
        self._groups = groups

    async def drain(self, node_id: str, deadline_s: float | None, by: str) -> NodeView:
        """Send no new jobs to a node, for an owner; jobs that still run there at the deadline, if any, are moved.

        Raises:
            NodeNotFoundError: no leader knows the node, and it is not being drained.
        """
        view = self._find(node_id)
        if view is None:
            if node_id not in await self._store.drains():
                raise self._unknown(node_id)
            view = _away(node_id)
        drain = await self._store.put_drain(node_id, deadline_s, by)
        state = view.state if view.state == "lost" else "draining"
        return replace(view, state=state, drain_deadline_at=drain.deadline_at)

    async def undrain(self, node_id: str) -> NodeView:
        """End the drain of a node; a node that is not being drained does not change.

        Raises:
            NodeNotFoundError: no leader knows the node, and it was not being drained.
        """
        view = self._find(node_id)
        was_draining = await self._store.delete_drain(node_id)
        if view is None:
            if not was_draining:
                raise self._unknown(node_id)
            return _away(node_id)
        if view.state in ("draining", "drained"):
            view = replace(view, state="unhealthy" if view.why else "ok")
        return replace(view, drain_deadline_at=None)

    def _find(self, node_id: str) -> NodeView | None:
        views = (node for group in self._groups() for node in group.nodes)
        return next((node for node in views if node.node_id == node_id), None)

    def _unknown(self, node_id: str) -> NodeNotFoundError:
        names = sorted(node.node_id for group in self._groups() for node in group.nodes)
        shown = ", ".join(names[:NAMES_SHOWN]) or "none yet"
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        return NodeNotFoundError(f"there is no node {node_id[:128]!r}; the nodes are: {shown}{more}")


def _away(node_id: str) -> NodeView:
    return NodeView(node_id, "", 0, 0, "lost", "no leader sees this node now; the request takes effect when one does")
