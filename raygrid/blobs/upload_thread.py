"""The thread of an upload, which hashes and writes in the order of the calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

GATHERED = 1024**2  # bytes passed to the thread at once; they arrive in pieces of 64 to 256 KB


class UploadThread:
    """A thread, and the calls that it has not finished."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._ahead: deque[asyncio.Future[object]] = deque()

    @property
    def ahead(self) -> int:
        """Number of calls whose result was not taken yet."""
        return len(self._ahead)

    def begin(self, work: Callable[..., object], *args: Any) -> None:
        """Run a function in the thread after those before it."""
        self._ahead.append(asyncio.get_running_loop().run_in_executor(self._executor, work, *args))

    async def finish_oldest(self) -> None:
        """Wait for the oldest call; raises its error."""
        await asyncio.wait((self._ahead[0],))  # unlike awaiting the future, this does not cancel it
        self._ahead.popleft().result()

    async def finish_all(self) -> None:
        """Wait for all calls, and ignore their errors."""
        if self._ahead:
            await asyncio.wait(self._ahead)  # unlike `gather`, this does not cancel the calls
            await asyncio.gather(*self._ahead, return_exceptions=True)  # marks their errors as retrieved

    def close(self) -> None:
        """End the thread after its current calls."""
        self._executor.shutdown(wait=False)
