"""A blob that is read like a file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from raygrid.models import BlobSlice

if TYPE_CHECKING:
    from raygrid.blobs.store import BlobStore


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
