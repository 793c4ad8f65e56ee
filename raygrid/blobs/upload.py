"""A blob on its way in: whoever receives it goes on receiving while a thread hashes and writes what came before.

A directory's blob is written here, an object store's through obstore. Whoever begins an upload ends it, by `finish` or
`abort`, and its thread with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from uuid_utils import uuid4

from raygrid.errors import UnavailableError
from raygrid.models import BlobSlice

if TYPE_CHECKING:
    from raygrid.blobs.store import BlobStore

GATHERED = 1024**2  # bytes that go to the thread together; they come in pieces of 64 to 256 KB
AHEAD = 2  # such lots that the thread has before it; beyond them, who sends has to wait
MOST_PIECES = 1_024  # that wait to be joined, for one of a byte takes many times its room
HELD = 4 * 1024**2  # a blob up to this size goes to an object store in one request
PART = 8 * 1024**2  # S3 takes no part of less than 5 MB but the last
AT_ONCE = 2  # parts of one blob on their way at the same time
SYNCED = 8 * 1024**2  # bytes of a file whose way to the disk begins together

_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_SYNC_FILE_RANGE_WRITE = 2


def write_all(file: FileIO, data: bytes) -> None:
    """Write bytes to a raw file, which may take some of them at a time."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


class Upload(ABC):
    """A blob on its way in, holding a few megabytes in memory, never the whole.

    A short one is put under its key at once; a longer one is written under a temporary key and then moved. It counts
    only once `finish` has returned; `abort` (or a crash and a later sweep) removes what is there.
    """

    def __init__(self, blobs: BlobStore, room: int) -> None:
        self._blobs = blobs
        self._temporary = f"uploads/{uuid4()}"
        self._hasher = hashlib.sha256()
        self._room = room
        self._pieces: list[bytes] = []
        self._gathered = 0
        self._thread: ThreadPoolExecutor | None = None
        self._ahead: deque[asyncio.Future[None]] = deque()
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        """Add bytes; waits where the thread is behind, so that nobody sends faster than the blob store takes."""
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
        with self._blobs._as_unavailable():
            while self._ahead:
                await self._oldest_is_done()
            digest = self._hasher.hexdigest()
            key = key_for(digest)
            await self._settle(key, self._thread)
        self._thread.shutdown(wait=False)
        return BlobSlice(key, 0, self.size, digest)

    async def abort(self) -> None:
        """Remove what was written."""
        self._pieces.clear()
        if self._thread is None:
            return
        try:
            with contextlib.suppress(OSError, BaseError, UnavailableError):
                await self._discard(self._thread)
            await asyncio.gather(*self._ahead, return_exceptions=True)
        finally:
            self._thread.shutdown(wait=False)

    async def _pass_on(self) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="upload")
            self._room = min(self._room, GATHERED)
        # Joined here, where there is time: the thread, which is busier, waits for the GIL after each of its calls.
        data = b"".join(self._pieces)
        self._pieces, self._gathered = [], 0
        with self._blobs._as_unavailable():
            while len(self._ahead) >= AHEAD:
                await self._oldest_is_done()
            await self._take(data, self._thread)

    async def _oldest_is_done(self) -> None:
        await asyncio.wait((self._ahead[0],))  # unlike waiting for it alone, this does not cancel it
        self._ahead.popleft().result()

    def _in_thread(self, thread: ThreadPoolExecutor, work: Callable[..., None], *args: Any) -> None:
        self._ahead.append(asyncio.get_running_loop().run_in_executor(thread, work, *args))

    @abstractmethod
    async def _take(self, data: bytes, thread: ThreadPoolExecutor) -> None:
        """Have the thread hash these bytes, and write them after those before."""

    @abstractmethod
    async def _settle(self, key: str, thread: ThreadPoolExecutor) -> None:
        """Let what was written lie under its key."""

    @abstractmethod
    async def _discard(self, thread: ThreadPoolExecutor) -> None:
        """Remove what was written, once the thread has come to it."""


class FileUpload(Upload):
    """A blob for a directory. Its bytes begin their way to the disk while others arrive, so that its end is soon."""

    def __init__(self, blobs: BlobStore, directory: Path) -> None:
        super().__init__(blobs, GATHERED)
        self._directory = directory
        self._path = directory / self._temporary
        self._file: FileIO | None = None
        self._written = self._begun = 0

    async def _take(self, data: bytes, thread: ThreadPoolExecutor) -> None:
        self._in_thread(thread, self._append, data)

    async def _settle(self, key: str, thread: ThreadPoolExecutor) -> None:
        self._in_thread(thread, self._settle_now, key)
        await self._oldest_is_done()

    async def _discard(self, thread: ThreadPoolExecutor) -> None:
        self._in_thread(thread, self._discard_now)
        await asyncio.wait(self._ahead)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._open()
        self._hasher.update(data)
        write_all(self._file, data)
        self._written += len(data)
        if self._written - self._begun >= SYNCED and _sync_file_range is not None:
            # No more than a start: what it says is of no matter, fsync has the last word.
            _sync_file_range(self._file.fileno(), self._begun, self._written - self._begun, _SYNC_FILE_RANGE_WRITE)
            self._begun = self._written

    def _open(self) -> FileIO:
        self._blobs._before_writing()
        try:
            return FileIO(self._path, "xb", opener=self._create)
        except FileNotFoundError:
            self._blobs.permissions.make_parents(self._path)
            return FileIO(self._path, "xb", opener=self._create)

    def _create(self, path: str, flags: int) -> int:
        return os.open(path, flags, self._blobs.permissions.file)

    def _settle_now(self, key: str) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        path = self._directory / key
        try:
            os.rename(self._path, path)
        except FileNotFoundError:
            self._blobs._before_writing()  # below a share that went away, no directories are made
            self._blobs.permissions.make_parents(path)
            os.rename(self._path, path)
        self._blobs._sync_directory(path.parent)
        self._blobs._require_grids(key)

    def _discard_now(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)


class ObjectUpload(Upload):
    """A blob for an object store: obstore sends it in parts."""

    def __init__(self, blobs: BlobStore) -> None:
        super().__init__(blobs, HELD)
        self._writer: Any = None

    async def _take(self, data: bytes, thread: ThreadPoolExecutor) -> None:
        self._in_thread(thread, self._hasher.update, data)
        if self._writer is None:
            await asyncio.to_thread(self._blobs._before_writing)
            self._writer = obstore.open_writer_async(
                self._blobs._store, self._temporary, buffer_size=PART, max_concurrency=AT_ONCE
            )
        await self._writer.write(data)

    async def _settle(self, key: str, thread: ThreadPoolExecutor) -> None:
        await self._writer.close()
        self._writer = None
        await obstore.rename_async(self._blobs._store, self._temporary, key)

    async def _discard(self, thread: ThreadPoolExecutor) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with contextlib.suppress(OSError, BaseError):
            await writer.close()
        await self._blobs.delete([self._temporary])
