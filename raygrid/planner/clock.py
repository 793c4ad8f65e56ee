"""Virtual time of a simulation of scale: what is to happen when, and whose turn it is.

Unlike `clock`, no event loop: millions of steps are wanted of it. Steps of the same instant go in the order in which
they were planned, so that the same program makes the same steps every time.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Any

STARTS_AT = 1_000_000_000.0  # seconds since the epoch: instants of reports have to be dates


class Agenda:
    """What is to happen in one part of the grid, soonest first."""

    def __init__(self) -> None:
        self.now = STARTS_AT
        self._planned: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    @property
    def next_at(self) -> float:
        """When something happens next; infinity where nothing does."""
        return self._planned[0][0] if self._planned else math.inf

    def at(self, instant: float, action: Callable[..., None], *args: Any) -> None:
        """Plan something."""
        self._count += 1
        heapq.heappush(self._planned, (instant, self._count, action, args))

    def after(self, delay_s: float, action: Callable[..., None], *args: Any) -> None:
        """Plan something, so long from now."""
        self.at(self.now + delay_s, action, *args)

    def run(self, until: float) -> None:
        """Let all happen that is to happen by then."""
        planned = self._planned
        while planned and planned[0][0] <= until:
            self.now, _, action, args = heapq.heappop(planned)
            action(*args)


class Turns:
    """Parts of the grid that do not hear each other for a while, and so may live through it one after another.

    As on machines of their own, each works with what it has at hand. Step by step in the order of time, every part
    would find that the others have taken its data out of the processor's cache whenever something happens to it.
    """

    def __init__(self) -> None:
        self._due: dict[Agenda, float] = {}
        self._line: list[tuple[float, int, Agenda]] = []  # soonest first; what `_due` does not say is out of date
        self._count = 0

    def wake(self, agenda: Agenda) -> None:
        """Something was planned in a part's agenda out of its turn."""
        assert agenda.next_at >= agenda.now, "a part has lived beyond what another one asks of it"
        if agenda.next_at < self._due.get(agenda, math.inf):
            self._line_up(agenda)

    def run(self, until: float) -> None:
        """Let each part live until then."""
        while self._line and self._line[0][0] <= until:
            at, _, agenda = heapq.heappop(self._line)
            if at == self._due[agenda]:
                agenda.run(until)
                self._line_up(agenda)

    def _line_up(self, agenda: Agenda) -> None:
        self._due[agenda] = agenda.next_at
        self._count += 1
        heapq.heappush(self._line, (agenda.next_at, self._count, agenda))
