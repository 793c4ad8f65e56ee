"""The queue of a group's ready jobs: by priority, first in first out within one, with cheap removal."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterator


class PriorityQueue:
    """Job ids by priority (higher first) and arrival.

    The cost of an operation does not depend on the length; a new priority costs a binary search.
    """

    def __init__(self) -> None:
        self._lines: dict[int, OrderedDict[str, None]] = {}
        self._order: list[int] = []  # negated priorities, ascending: the most urgent first
        self._priority: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._priority)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._priority

    def __iter__(self) -> Iterator[str]:
        """Iterate in the order in which the ids would be taken."""
        for negated in self._order:
            yield from self._lines[-negated]

    def add(self, job_id: str, priority: int, *, first: bool = False) -> None:
        """Add a job at the end of its priority, or (`first`) at its head: retries run before new jobs."""
        if job_id in self._priority:
            return
        line = self._lines.get(priority)
        if line is None:
            line = self._lines[priority] = OrderedDict()
            insort(self._order, -priority)
        line[job_id] = None
        if first:
            line.move_to_end(job_id, last=False)
        self._priority[job_id] = priority

    def remove(self, job_id: str) -> bool:
        """Remove a job; return False if it does not wait."""
        priority = self._priority.pop(job_id, None)
        if priority is None:
            return False
        line = self._lines[priority]
        del line[job_id]
        if not line:
            del self._lines[priority]
            self._order.remove(-priority)
        return True

    def pop(self) -> str:
        """Remove and return the next job.

        Raises:
            IndexError: no job waits.
        """
        job_id = next(iter(self), None)
        if job_id is None:
            raise IndexError("the queue is empty")
        self.remove(job_id)
        return job_id

    @property
    def lowest_priority(self) -> int | None:
        """The lowest priority among the waiting jobs; None if there are none."""
        return -self._order[-1] if self._order else None
