"""Collects the commands of a group's state machine while it handles one event."""

from __future__ import annotations

from datetime import UTC, datetime

from raygrid.core.group.events import AttemptOrder, Command, StartAttempts, StopAttempts, WriteUpdates
from raygrid.models import AttemptId, JobUpdate


class Collector:
    """Collects commands, merged by kind and node; only the latest update of a job is kept."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.at = self.instant(now)
        self._starts: dict[str, list[AttemptOrder]] = {}
        self._stops: dict[str, list[AttemptId]] = {}
        self._recalls: dict[str, list[AttemptId]] = {}
        self._updates: dict[str, JobUpdate] = {}

    @staticmethod
    def instant(seconds: float) -> datetime:
        """Convert seconds since the epoch to the store's aware UTC instant."""
        return datetime.fromtimestamp(seconds, UTC)

    def start(self, node_id: str, order: AttemptOrder) -> None:
        """Hand an attempt to a node."""
        self._starts.setdefault(node_id, []).append(order)

    def stop(self, node_id: str, attempt: AttemptId) -> None:
        """Kill an attempt on a node."""
        self._stops.setdefault(node_id, []).append(attempt)

    def recall(self, node_id: str, attempt: AttemptId) -> None:
        """Take an attempt back from a node unless it has begun there, which the leader may learn only later."""
        self._recalls.setdefault(node_id, []).append(attempt)

    def update(self, update: JobUpdate) -> None:
        """Write a change of a job; it replaces an earlier one of the same job."""
        self._updates[update.job_id] = update

    def commands(self) -> list[Command]:
        """Return the commands; writes come first, so that they are under way before attempts start."""
        out: list[Command] = []
        if self._updates:
            out.append(WriteUpdates(tuple(self._updates.values())))
        for node_id in dict.fromkeys((*self._stops, *self._recalls)):
            stops, recalls = self._stops.get(node_id, ()), self._recalls.get(node_id, ())
            out.append(StopAttempts(node_id, tuple(stops), tuple(recalls)))
        out += [StartAttempts(node_id, tuple(orders)) for node_id, orders in self._starts.items()]
        return out
