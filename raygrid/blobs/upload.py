"""A blob on its way in: the caller goes on receiving while a thread hashes and writes what came before.

The caller that begins an upload ends it, by `finish` or `abort`, and its thread with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from obstore.exceptions import BaseError

from raygrid.blobs.port import Sink
from raygrid.errors import UnavailableError
from raygrid.models import BlobSlice

GATHERED = 1024**2  # bytes that go to the thread together; they come in pieces of 64 to 256 KB
AHEAD = 2  # such lots that the thread has before it; beyond them, the sender has to wait
MOST_PIECES = 1_024  # that wait to be joined: a piece of one byte takes many times its room


class Target(Protocol):
    """The blob store that an upload goes to."""

    async def put(self, key: str, data: bytes) -> None:
        """Store small bytes under a key."""

    def as_unavailable(self) -> contextlib.AbstractContextManager[None]:
        """Turn errors of the place into those of the grid."""


class UploadThread:
    """The thread of one upload, with the work that it has not finished."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="upload")
        self._ahead: deque[asyncio.Future[object]] = deque()

    @property
    def ahead(self) -> int:
        """How many pieces of work are not finished."""
        return len(self._ahead)

    def begin(self, work: Callable[..., object], *args: Any) -> None:
        """See `Worker.begin`."""
        self._ahead.append(asyncio.get_running_loop().run_in_executor(self._executor, work, *args))

    async def finish_oldest(self) -> None:
        """See `Worker.finish_oldest`."""
        await asyncio.wait((self._ahead[0],))  # unlike waiting for it alone, this does not cancel it
        self._ahead.popleft().result()

    async def finish_all(self) -> None:
        """See `Worker.finish_all`."""
        if self._ahead:
            await asyncio.wait(self._ahead)

    async def forget_all(self) -> None:
        """Wait for everything, and drop the errors."""
        await asyncio.gather(*self._ahead, return_exceptions=True)

    def close(self) -> None:
        """Let the thread end with what it does."""
        self._executor.shutdown(wait=False)


class Upload:
    """A blob on its way in, holding a few megabytes in memory, never the whole.

    A short one is put under its key at once; a longer one is written under a temporary key and then moved. It counts
    only once `finish` has returned; `abort` (or a crash and a later sweep) removes what is there.
    """

    def __init__(self, blobs: Target, sink: Sink) -> None:
        self._blobs = blobs
        self._sink = sink
        self._hasher = hashlib.sha256()
        self._room = sink.room
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._thread: UploadThread | None = None
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        """Add bytes; waits where the thread is behind, so that no sender is faster than the blob store."""
        self.size += len(chunk)
        self._gathered += len(chunk)
        self._pieces.append(chunk)
        if self._gathered > self._room:
            await self._pass_on()
        elif len(self._pieces) == MOST_PIECES:
            self._pieces = [b"".join(self._pieces)]

    async def finish(self, key_for: Callable[[str], str]) -> BlobSlice:
        """Let it lie under the key made from its digest; it survives a power cut from then on.

        S3 has no move: its copy within the store takes up to 5 GB, more than `http.max_body` should ever be there.
        """
        if self._thread is None:
            data = b"".join(self._pieces)
            digest = hashlib.sha256(data).hexdigest()
            key = key_for(digest)
            await self._blobs.put(key, data)
            return BlobSlice(key, 0, self.size, digest)
        if self._pieces:
            await self._pass_on()
        with self._blobs.as_unavailable():
            while self._thread.ahead:
                await self._thread.finish_oldest()
            digest = self._hasher.hexdigest()
            key = key_for(digest)
            await self._sink.settle(key, self._thread)
        self._thread.close()
        return BlobSlice(key, 0, self.size, digest)

    async def abort(self) -> None:
        """Remove what was written."""
        self._pieces.clear()
        if self._thread is None:
            return
        try:
            with contextlib.suppress(OSError, BaseError, UnavailableError):
                await self._sink.discard(self._thread)
            await self._thread.forget_all()
        finally:
            self._thread.close()

    async def _pass_on(self) -> None:
        if self._thread is None:
            self._thread = UploadThread()
            self._room = min(self._room, GATHERED)
        # Joined here, where there is time: the thread, which is busier, waits for the GIL after each of its calls.
        data = b"".join(self._pieces)
        self._pieces, self._gathered = [], 0
        with self._blobs.as_unavailable():
            while self._thread.ahead >= AHEAD:
                await self._thread.finish_oldest()
            await self._sink.take(data, self._hasher.update, self._thread)
