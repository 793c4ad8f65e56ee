"""Reads the drains of nodes from the job store, and reports new, changed and ended ones to a leader's group."""

from __future__ import annotations

from collections.abc import Callable

from raygrid.core.group.events import Event, NodeDraining
from raygrid.models import Drain
from raygrid.store import JobStore


class DrainReader:
    """Reads the drains, and passes events to `on_event`."""

    def __init__(self, store: JobStore, on_event: Callable[[Event], None]) -> None:
        self._store = store
        self._on_event = on_event
        self._known: dict[str, Drain] = {}

    async def read(self) -> None:
        """Read the drains, and report those that have changed.

        A deadline is an instant of the store's clock and is compared with the leader's clock: running jobs are moved
        too early or too late by the difference of the two.
        """
        found = await self._store.drains()
        for node_id in self._known.keys() - found.keys():
            self._on_event(NodeDraining(node_id, False))
        for node_id, drain in found.items():
            if drain != self._known.get(node_id):
                deadline = drain.deadline_at.timestamp() if drain.deadline_at else None
                self._on_event(NodeDraining(node_id, True, deadline))
        self._known = found
