"""The reports of a node agent: numbered, and kept until a leader has committed them.

A leader that asks again, or a new leader, misses none of them. Every life of an agent begins with another number, so
that a leader cannot confuse its reports with those of an earlier life.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable

from raygrid.models import AttemptReport


class ReportLog:
    """Reports in the order of their numbers. The caller holds a lock during all calls but `wait`, `wake` and `attach`.

    `incarnation` is the name of this life of the agent, hexadecimal.

    Attributes:
        first: the number before the first report of this life.
        last: the number of the latest report.
        is_closed: whether further reports are dropped.
    """

    def __init__(self, incarnation: str) -> None:
        self.first = self.last = int(incarnation[:12], 16)
        self.is_closed = False
        self._reports: deque[tuple[int, AttemptReport]] = deque()
        self._news: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._reports)

    def append(self, reports: Iterable[AttemptReport]) -> None:
        """Add reports, and end a waiting poll."""
        if self.is_closed:
            return
        before = self.last
        for report in reports:
            self.last += 1
            self._reports.append((self.last, report))
        if self.last != before:
            self.wake()

    def knows(self, number: int) -> bool:
        """Whether a number belongs to this life."""
        return self.first <= number <= self.last

    def settle(self, number: int) -> None:
        """Drop the reports up to a number, which a leader has committed."""
        while self._reports and self._reports[0][0] <= number:
            self._reports.popleft()

    def since(self, number: int) -> tuple[AttemptReport, ...]:
        """The reports after a number."""
        return tuple(report for each, report in self._reports if each > number)

    # --- waiting ----------------------------------------------------------------------------------------------------

    def attach(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Serve polls in an event loop; return whether this is the first one."""
        if self._news is not None:
            return False
        self._news, self._loop = asyncio.Event(), loop
        return True

    def expect(self, after: int) -> None:
        """Begin to wait for reports after a number; call this before `wait`, and with the lock held."""
        if self._news is not None and self.last <= after:
            self._news.clear()

    async def wait(self, wait_s: float) -> None:
        """Wait until `wake` is called, for some seconds at most."""
        assert self._news is not None, "no event loop is attached"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._news.wait()

    def wake(self) -> None:
        """End a waiting poll now; may be called from any thread."""
        if self._news is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)
