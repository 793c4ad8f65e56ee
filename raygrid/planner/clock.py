"""Virtual time of the planner's simulation: the planned steps of each part, and the order in which parts run.

It is not an event loop, because it has to run millions of steps. Steps of the same instant run in the order in which
they were planned, so that a simulation is repeatable.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

STARTS_AT = 1_000_000_000.0  # seconds since 1970, because the times in reports must be valid dates


class Agenda:
    """The planned steps of one part of the grid, by time."""

    def __init__(self) -> None:
        self.now = STARTS_AT
        self._planned: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def next_at(self) -> float:
        """The time of the next step; infinity without one."""
        return self._planned[0][0] if self._planned else math.inf

    def at(self, instant: float, action: Callable[..., None], *args: Any) -> None:
        """Plan a step."""
        self._count += 1
        heapq.heappush(self._planned, (instant, self._count, action, args))

    def after(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Plan a step for `delay_s` from now."""
        self.at(self.now + delay_s, action, *args)

    def run(self, until: float) -> None:
        """Run all steps up to that time."""
        planned = self._planned
        while planned and planned[0][0] <= until:
            self.now, _, action, args = heapq.heappop(planned)
            action(*args)


class Turns:
    """Runs parts of the grid one after another through a period in which they do not affect each other.

    That is as fast as on separate machines. In strict order of time, each step of a part would find that the steps of
    other parts have replaced its data in the processor's cache.
    """

    def __init__(self) -> None:
        self._due: dict[Agenda, float] = {}
        self._line: list[tuple[float, int, Agenda]] = []  # a heap; entries that differ from `_due` are outdated
        self._count = 0

    def wake(self, agenda: Agenda) -> None:
        """Note that another part has planned a step in this agenda."""
        assert agenda.next_at >= agenda.now, "a step was planned before the time that its part has reached"
        if agenda.next_at < self._due.get(agenda, math.inf):
            self._line_up(agenda)

    def run(self, until: float) -> None:
        """Run each part up to that time."""
        while self._line and self._line[0][0] <= until:
            at, _, agenda = heapq.heappop(self._line)
            if at == self._due[agenda]:
                agenda.run(until)
                self._line_up(agenda)

    def _line_up(self, agenda: Agenda) -> None:
        self._due[agenda] = agenda.next_at
        self._count += 1
        heapq.heappush(self._line, (agenda.next_at, self._count, agenda))
