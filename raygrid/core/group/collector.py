"""Collects what a group's state machine asks for while it takes one event."""

from __future__ import annotations

from datetime import UTC, datetime

from raygrid.core.group.events import AttemptOrder, Command, StartAttempts, StopAttempts, WriteUpdates
from raygrid.models import AttemptId, JobUpdate


class Collector:
    """Collects commands, joined by kind and node; only a job's latest update is kept."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.at = self.instant(now)
        self._starts: dict[str, list[AttemptOrder]] = {}
        self._stops: dict[str, list[AttemptId]] = {}
        self._updates: dict[str, JobUpdate] = {}

    @staticmethod
    def instant(seconds: float) -> datetime:
        """The instant for the store, from seconds since the epoch."""
        return datetime.fromtimestamp(seconds, UTC)

    def start(self, node_id: str, order: AttemptOrder) -> None:
        """Have an attempt handed to a node."""
        self._starts.setdefault(node_id, []).append(order)

    def stop(self, node_id: str, attempt: AttemptId) -> None:
        """Have an attempt killed."""
        self._stops.setdefault(node_id, []).append(attempt)

    def update(self, update: JobUpdate) -> None:
        """Have a change written; it replaces an earlier one of the same job."""
        self._updates[update.job_id] = update

    def commands(self) -> list[Command]:
        """Writes first, so that they are under way before anything starts."""
        out: list[Command] = []
        if self._updates:
            out.append(WriteUpdates(tuple(self._updates.values())))
        out += [StopAttempts(node_id, tuple(ids)) for node_id, ids in self._stops.items()]
        out += [StartAttempts(node_id, tuple(orders)) for node_id, orders in self._starts.items()]
        return out
