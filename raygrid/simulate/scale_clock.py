"""Virtual time of a simulation of scale: what is to happen when, and nothing else.

Unlike `clock`, no event loop: millions of steps are wanted of it. Steps of the same instant go in the order in which
they were planned, so that the same program makes the same steps every time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

STARTS_AT = 1_000_000_000.0  # seconds since the epoch: instants of reports have to be dates


class Agenda:
    """What is to happen, soonest first."""

    def __init__(self) -> None:
        self.now = STARTS_AT
        self._planned: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Plan something."""
        self._count += 1
        heapq.heappush(self._planned, (self.now + delay_s, self._count, action, args))

    def run(self, until: Callable[[], bool]) -> None:
        """Let it happen, until there is nothing left to happen or `until` says so."""
        planned = self._planned
        while planned and not until():
            self.now, _, action, args = heapq.heappop(planned)
            action(*args)
