"""Bounds the memory that answers hold while their clients read them.

An answer that holds more than `FREE` bytes takes a turn before it reads them, and gives it back when they are sent. So
thousands of slow readers hold no more than `TURNS` answers; the listener cuts those that read too slowly, so that the
others get their turns. No key can hold more than its share of the turns.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from raygrid.errors import UnavailableError

FREE = 64 * 1024
"""Bytes that an answer may hold without a turn."""
TURNS = 24
TURNS_OF_A_KEY = 12
PIECE = 256 * 1024
"""Bytes that an answer passes on at once."""
WAIT_S = 90.0
RETRY_AFTER_S = 5.0


class Outflow:
    """The turns of one parent."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(TURNS)
        self._of_key: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, key: str, size: int) -> AsyncIterator[None]:
        """Hold so many bytes for a key's answer while the block runs.

        Raises:
            UnavailableError: no turn has come for `WAIT_S` seconds.
        """
        if size <= FREE:
            yield
            return
        self._users[key] += 1
        own = self._of_key.setdefault(key, asyncio.Semaphore(TURNS_OF_A_KEY))
        try:
            async with _acquired(own), _acquired(self._turns):
                yield
        finally:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key], self._of_key[key]


@asynccontextmanager
async def _acquired(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(WAIT_S):
            await turns.acquire()
    except TimeoutError:
        why = "too many answers are being read slowly at this parent; try again, or at another parent"
        raise UnavailableError(why, retry_after_s=RETRY_AFTER_S) from None
    try:
        yield
    finally:
        turns.release()


def in_pieces(data: bytes) -> list[memoryview]:
    """The pieces in which an answer passes bytes on."""
    view = memoryview(data)
    return [view[at : at + PIECE] for at in range(0, len(view), PIECE)]
