"""The jobs of a group that have no node: ready, delayed or set aside, bounded by the window."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from raygrid.core.group.priority_queue import PriorityQueue


class Backlog:
    """Jobs without a node, at most about `window` of them in memory; the store keeps the others.

    After a job was refused because the window is full, only more urgent jobs are admitted until the store has been
    scanned. Otherwise a steady stream of new jobs could overtake the refused job forever.
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._ready = PriorityQueue()
        self._later: list[tuple[float, str]] = []  # soonest first
        self._due: dict[str, tuple[float, int]] = {}  # due time and priority; other items of `_later` are obsolete
        self.aside: dict[str, float] = {}  # jobs that cannot start now, and since when
        self._refused: int | None = None  # highest priority that was refused

    def __len__(self) -> int:
        return len(self._ready) + len(self._due) + len(self.aside)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the ready jobs in their order, then the delayed ones, then those set aside."""
        yield from self._ready
        yield from self._due
        yield from self.aside

    @property
    def ready(self) -> int:
        """Number of jobs that may start now."""
        return len(self._ready)

    def admits(self, priority: int) -> bool:
        """Whether another job is admitted; a refusal is remembered."""
        lowest = self._ready.lowest_priority
        room = len(self) < self.window or (lowest is not None and priority > lowest)
        if self._refused is not None and priority <= self._refused:
            return False
        if not room:
            self._refused = priority if self._refused is None else max(priority, self._refused)
        return room

    def scanned(self) -> None:
        """Forget refusals: the jobs that follow are the store's first ones, in its order."""
        self._refused = None

    def add(self, job_id: str, priority: int, *, first: bool = False) -> None:
        """Make a job ready, at the end or (`first`) at the head of its priority."""
        self._ready.add(job_id, priority, first=first)

    def add_later(self, job_id: str, priority: int, due: float) -> None:
        """Delay a job until `due`; it is then ready at the head of its priority."""
        self._due[job_id] = (due, priority)
        heappush(self._later, (due, job_id))

    def release_due(self, now: float) -> None:
        """Make the delayed jobs ready that are due."""
        while self._later and self._later[0][0] <= now:
            due, job_id = heappop(self._later)
            if job_id in self._due and self._due[job_id][0] == due:
                _, priority = self._due.pop(job_id)
                self._ready.add(job_id, priority, first=True)

    def remove(self, job_id: str) -> None:
        """Remove a job, wherever it waits."""
        self._ready.remove(job_id)
        self._due.pop(job_id, None)
        self.aside.pop(job_id, None)

    def pop(self) -> str:
        """Remove and return the next ready job; raises IndexError if none is ready."""
        return self._ready.pop()
