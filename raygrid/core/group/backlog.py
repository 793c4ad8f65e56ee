"""The jobs of a group that have no node: the waiting line, those that wait a while first, and the window's bound."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from raygrid.core.group.waiting_line import WaitingLine


class Backlog:
    """Jobs without a node, at most about `window` of them in memory; the store keeps the rest.

    Once a job was refused for want of room, none that is not more urgent gets in until the store has been scanned:
    a steady stream of new jobs would overtake it without end.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._line = WaitingLine()
        self._later: list[tuple[float, str]] = []  # soonest first
        self._due: dict[str, tuple[float, int]] = {}  # due time and priority; what `_later` holds beyond is out of date
        self.aside: dict[str, float] = {}  # jobs that cannot be taken as things stand, and since when
        self._refused: int | None = None  # most urgent priority that there was no place for

    def __len__(self) -> int:
        return len(self._line) + len(self._due) + len(self.aside)

    def __iter__(self) -> Iterator[str]:
        """Those that may be taken now, in their order, then those that wait a while, then those set aside."""
        yield from self._line
        yield from self._due
        yield from self.aside

    @property
    def ready(self) -> int:
        """How many may be taken now."""
        return len(self._line)

    def admits(self, priority: int) -> bool:
        """Whether there is a place for another job; a refusal is remembered."""
        lowest = self._line.lowest_priority
        room = len(self) < self.window or (lowest is not None and priority > lowest)
        if self._refused is not None and priority <= self._refused:
            return False
        if not room:
            self._refused = priority if self._refused is None else max(priority, self._refused)
        return room

    def scanned(self) -> None:
        """What comes now is what the store holds, in its order: nobody can be overtaken."""
        self._refused = None

    def add(self, job_id: str, priority: int, *, first: bool = False) -> None:
        """Let a job wait its turn, or at the head of its priority."""
        self._line.add(job_id, priority, first=first)

    def add_later(self, job_id: str, priority: int, due: float) -> None:
        """Let a job wait until `due`, then at the head of its priority."""
        self._due[job_id] = (due, priority)
        heappush(self._later, (due, job_id))

    def ripen(self, now: float) -> None:
        """Put those whose time has come in line."""
        while self._later and self._later[0][0] <= now:
            due, job_id = heappop(self._later)
            if job_id in self._due and self._due[job_id][0] == due:
                _, priority = self._due.pop(job_id)
                self._line.add(job_id, priority, first=True)

    def remove(self, job_id: str) -> None:
        """Take a job out, wherever it waits."""
        self._line.remove(job_id)
        self._due.pop(job_id, None)
        self.aside.pop(job_id, None)

    def pop(self) -> str:
        """Take the next job; IndexError where none is ready."""
        return self._line.pop()
