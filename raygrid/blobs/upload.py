"""Uploads: a thread hashes and writes the received bytes while the caller receives further ones.

The caller that starts an upload must end it, and thereby its thread, by `finish` or `abort`.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from typing import Protocol

from obstore.exceptions import BaseError

from raygrid.blobs.port import Sink
from raygrid.blobs.upload_thread import GATHERED, UploadThread
from raygrid.errors import UnavailableError
from raygrid.models import BlobSlice

AHEAD = 2  # lots of `GATHERED` bytes that may wait for the thread; the sender waits if there are more
MOST_PIECES = 1_024  # pieces that wait to be joined; a piece of one byte takes many times its size in memory


class Target(Protocol):
    """The blob store that an upload goes to."""

    async def put(self, key: str, data: bytes) -> None:
        """Store small bytes under a key."""

    def as_unavailable(self) -> contextlib.AbstractContextManager[None]:
        """Translate errors of the place into those of the grid."""


class Upload:
    """A blob that is being written, with at most a few megabytes in memory.

    A short blob is stored under its key at once; a longer one is written under a temporary key and then renamed. The
    blob exists once `finish` has returned; `abort` (or a sweep after a crash) removes an unfinished one.
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
        """Add bytes; waits while the thread has too much work, so that the sender is not faster than the blob store."""
        self.size += len(chunk)
        self._gathered += len(chunk)
        self._pieces.append(chunk)
        if self._gathered > self._room:
            await self._pass_on()
        elif len(self._pieces) == MOST_PIECES:
            self._pieces = [b"".join(self._pieces)]

    async def finish(self, key_for: Callable[[str], str]) -> BlobSlice:
        """Store the blob under a key made from its digest; it survives a power cut from then on.

        S3 renames by a copy, which is limited to 5 GB; `http.max_body` should be lower there.
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
        """Remove the written bytes."""
        self._pieces.clear()
        if self._thread is None:
            return
        try:
            with contextlib.suppress(OSError, BaseError, UnavailableError):
                await self._sink.discard(self._thread)
            await self._thread.finish_all()
        finally:
            self._thread.close()

    async def _pass_on(self) -> None:
        if self._thread is None:
            self._thread = UploadThread()
            self._room = min(self._room, GATHERED)
        # Joined here, because the thread has more work and must wait for the GIL after each of its calls.
        data = b"".join(self._pieces)
        self._pieces, self._gathered = [], 0
        with self._blobs.as_unavailable():
            while self._thread.ahead >= AHEAD:
                await self._thread.finish_oldest()
            await self._sink.take(data, self._hasher.update, self._thread)
