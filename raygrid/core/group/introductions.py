"""A new leader hears its nodes before it hands out work.

What nodes run, or have finished unreported, may not stand in the store yet: the leader before may have died between the
start of an attempt and its record. Handing such a job to another node at once would run it a second time.
"""

from __future__ import annotations

from collections.abc import Iterable

HEAR_S = 1.0  # a node that says nothing for so long is not waited for: its jobs may be lost anyway


class Introductions:
    """Which nodes are still to be heard."""

    def __init__(self) -> None:
        self._awaited: set[str] = set()
        self._until = 0.0

    def expect(self, node_ids: Iterable[str], now: float) -> None:
        """Wait for the first word of these."""
        self._awaited = set(node_ids)
        self._until = now + HEAR_S

    def heard(self, node_id: str) -> None:
        """A node has spoken, or is gone."""
        self._awaited.discard(node_id)

    def are_over(self, now: float) -> bool:
        """Whether work may be handed out."""
        return not self._awaited or now >= self._until
