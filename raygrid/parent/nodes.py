"""What ops ask of nodes: to be drained, and to work again.

A drain is kept in the job store; the leaders look there. So the answer here says what was wished, before the leader
has acted on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from raygrid.errors import NodeNotFoundError
from raygrid.models import GroupCapacity, NodeView
from raygrid.store import JobStore

NAMES_TOLD = 20


class Nodes:
    """The nodes that the leaders tell of, and the drains in the store.

    Args:
        store: the job store.
        groups: gives the load of every group, those with a silent leader included.
    """

    def __init__(self, store: JobStore, groups: Callable[[], list[GroupCapacity]]) -> None:
        self._store = store
        self._groups = groups

    async def drain(self, node_id: str, deadline_s: float | None) -> NodeView:
        """Give a node no new jobs; with a deadline, move what still runs there then.

        Raises:
            NodeNotFoundError: no leader knows the node, and it is not being drained.
        """
        view = self._find(node_id)
        if view is None:
            if node_id not in await self._store.drains():
                raise self._unknown(node_id)
            view = _away(node_id)
        drain = await self._store.put_drain(node_id, deadline_s)
        state = view.state if view.state == "lost" else "draining"
        return replace(view, state=state, drain_deadline_at=drain.deadline_at)

    async def undrain(self, node_id: str) -> NodeView:
        """Let a node work again; one that is not being drained stays as it is.

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
        told = ", ".join(names[:NAMES_TOLD]) or "none yet"
        more = f" and {len(names) - NAMES_TOLD} more" if len(names) > NAMES_TOLD else ""
        return NodeNotFoundError(f"there is no node {node_id[:128]!r}; the nodes are: {told}{more}")


def _away(node_id: str) -> NodeView:
    return NodeView(node_id, "", 0, 0, "lost", "no leader sees this node now; the wish is kept for when one does")
