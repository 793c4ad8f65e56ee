"""One value for each event loop, for objects that work only in the loop of their first use.

Notebooks, test suites and scripts that call `asyncio.run` several times use one client in several loops. Sockets of a
closed loop fail with "Event loop is closed".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from raygrid.client.per_process import PerProcess

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Makes a value at its first use in each event loop of each process.

    A value that was made outside a loop is used by the first loop. Values of closed loops are dropped, not closed:
    a closed loop cannot run their `close`, and their sockets are closed when their memory is freed.
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
        """The value of the running loop, or None."""
        values = self._made.made() or {}
        return values.get(_running(), values.get(None))

    def replace(self, used: T) -> None:
        """Make another value for this loop, unless `used` was replaced already."""
        values, loop = self._made.get(), _running()
        if values.get(loop) is used:
            values[loop] = self._make()


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
