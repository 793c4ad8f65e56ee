"""One value for each event loop: what is bound to the loop in which it was first used.

Notebooks, scripts that call `asyncio.run` several times and test suites use one client in several loops; the sockets of
a loop that has ended fail with "Event loop is closed".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from raygrid.client.per_process import PerProcess

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes a value at its first use in each event loop of each process.

    One that was made outside any loop is the first loop's. Those of loops that have ended are dropped, not closed:
    nothing can be waited for in them any more, and their files are closed as their memory is freed.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: PerProcess[dict[asyncio.AbstractEventLoop | None, T]] = PerProcess(dict)

    def get(self) -> T:
        """The value of the running loop."""
        values, loop = self._made.get(), _running()
        if loop not in values:
            for ended in [each for each in values if each is not None and each.is_closed()]:
                values.pop(ended, None)
            values[loop] = values.pop(None) if None in values else self._make()
        return values[loop]

    def made(self) -> T | None:
        """The value of the running loop, if it has one already."""
        values = self._made.made() or {}
        return values.get(_running(), values.get(None))

    def replace(self, used: T) -> None:
        """Let the next use in this loop make another value, unless one was made since this one."""
        values, loop = self._made.get(), _running()
        if values.get(loop) is used:
            values[loop] = self._make()


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
