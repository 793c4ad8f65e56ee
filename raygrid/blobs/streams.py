"""Blobs piece by piece: one on its way in, and one read like a file."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import BaseError
from uuid_utils import uuid4

from raygrid.errors import UnavailableError
from raygrid.models import BlobSlice

if TYPE_CHECKING:
    from raygrid.blobs.store import BlobStore

HELD = 4 * 1024**2  # an upload up to this size stays in memory until it is whole
PART = 8 * 1024**2  # S3 takes no part of less than 5 MB but the last
AT_ONCE = 2  # parts of one blob on their way at the same time


class Upload:
    """A blob on its way in: hashed while it is written, holding a few chunks in memory, never the whole.

    One that fits into `HELD` is put under its key at once; a longer one is written in parts and then moved. It counts
    only once `finish` has returned; `abort` (or a crash and a later sweep) removes what is there.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._temporary = f"uploads/{uuid4()}"
        self._hasher = hashlib.sha256()
        self._held = bytearray()
        self._writer: Any = None
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        """Add bytes."""
        self._hasher.update(chunk)
        self.size += len(chunk)
        if self._writer is None and len(self._held) + len(chunk) <= HELD:
            self._held += chunk
            return
        with self._blobs._as_unavailable():
            if self._writer is None:
                await asyncio.to_thread(self._blobs._before_writing)
                self._writer = obstore.open_writer_async(
                    self._blobs._store, self._temporary, buffer_size=PART, max_concurrency=AT_ONCE
                )
                await self._writer.write(bytes(self._held))
                self._held.clear()
            await self._writer.write(chunk)

    async def finish(self, key_for: Callable[[str], str]) -> BlobSlice:
        """Let it lie under the key made from its digest; it survives a power cut from then on.

        S3 has no move: its copy within the store takes up to 5 GB, more than `http.max_body` should ever be there.
        """
        digest = self._hasher.hexdigest()
        key = key_for(digest)
        if self._writer is None:
            await self._blobs.put(key, bytes(self._held))
            return BlobSlice(key, 0, self.size, digest)
        with self._blobs._as_unavailable():
            await self._writer.close()
            self._writer = None
            await obstore.rename_async(self._blobs._store, self._temporary, key)
            await asyncio.to_thread(self._blobs._flush, key)
        return BlobSlice(key, 0, self.size, digest)

    async def abort(self) -> None:
        """Remove what was written."""
        self._held.clear()
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        with contextlib.suppress(OSError, BaseError):
            await writer.close()
        with contextlib.suppress(UnavailableError):
            await self._blobs.delete([self._temporary])


class BlobFile(io.RawIOBase):
    """A slice of a blob as a raw file."""

    def __init__(self, blobs: BlobStore, blob: BlobSlice) -> None:
        self._blobs = blobs
        self._blob = blob
        self._at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the slice."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read what comes next."""
        size = max(0, min(len(buffer), self._blob.size - self._at))
        if size:
            part = BlobSlice(self._blob.key, self._blob.offset + self._at, size, "")
            buffer[:size] = self._blobs.read_now(part)
            self._at += size
        return size
