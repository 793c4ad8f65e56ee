"""A new leader waits for the first report of each node before it starts attempts.

The store may not yet have the attempts that nodes run, or have finished without a report: the earlier leader may have
died between the start of an attempt and its record. Starting such a job on another node would run it a second time.
"""

from __future__ import annotations

from collections.abc import Iterable

FIRST_REPORT_S = 1.0  # longest wait: the jobs of a node that is silent for longer may be lost


class FirstReports:
    """The nodes whose first report a new leader still waits for."""

    def __init__(self) -> None:
        self._awaited: set[str] = set()
        self._until = 0.0

    def expect(self, node_ids: Iterable[str], now: float) -> None:
        """Wait for these nodes."""
        self._awaited = set(node_ids)
        self._until = now + FIRST_REPORT_S

    def arrived(self, node_id: str) -> None:
        """Stop waiting for a node: it has reported, or is gone."""
        self._awaited.discard(node_id)

    def are_complete(self, now: float) -> bool:
        """Whether attempts may be started."""
        return not self._awaited or now >= self._until
