"""The numbered list of a group's committed changes, which parents poll."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from raygrid.transport.ports import JobChange

REMEMBERED = 20_000


class ChangeFeed:
    """The latest committed changes, and the polls that wait for the next ones."""

    def __init__(self) -> None:
        self._changes: deque[JobChange] = deque(maxlen=REMEMBERED)
        self._last = 0
        self._waiters: dict[asyncio.Future[None], None] = {}  # in order of arrival

    @property
    def last(self) -> int:
        """Number of the latest change."""
        return self._last

    def publish(self, changes: Iterable[JobChange]) -> None:
        """Add committed changes."""
        before = self._last
        for change in changes:
            self._last += 1
            self._changes.append(change)
        if self._last > before:
            self.wake()

    def wake(self) -> None:
        """Answer waiting polls now, even without a change: each answer has the group's load."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def wait(self, after: int, wait_s: float) -> None:
        """Wait until there is a change after a number, at most `wait_s`."""
        if self._last > after or wait_s <= 0:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            async with asyncio.timeout(wait_s):
                await waiter
        except TimeoutError:
            pass
        finally:
            self._waiters.pop(waiter, None)

    def after(self, after: int) -> tuple[tuple[JobChange, ...], bool]:
        """The changes after a number, and whether some of them are no longer in memory."""
        missing = self._last - after
        if missing <= 0:
            return (), False
        if missing > len(self._changes):
            return (), True
        start = len(self._changes) - missing
        return tuple(self._changes[i] for i in range(start, len(self._changes))), False
