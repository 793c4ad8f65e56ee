"""Digests of a large blob's chunks, so that each chunk can be checked before any of its bytes is sent.

A blob of up to `CHUNK` bytes has one digest, that of the whole. A larger one also has a digest for every chunk;
`JobStore.result_chunks` returns them concatenated, 32 bytes each.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from raygrid.errors import BlobDamagedError
from raygrid.models import BlobSlice

if TYPE_CHECKING:
    from raygrid.blobs.store import BlobStore

CHUNK = 1024**2
TOGETHER = 2  # chunks per read: a request to an object store costs as much as one or two megabytes
_LENGTH = hashlib.sha256().digest_size


def digests(pieces: Iterable[bytes | memoryview]) -> tuple[str, bytes | None]:
    """Compute both kinds of digests in one pass, those of the chunks in a thread, in parallel with that of the whole.

    Args:
        pieces: the bytes in pieces of `CHUNK` bytes; the last one may be shorter.

    Returns:
        The sha256 of the whole in hexadecimal, and the digests of the chunks; None if there is only one chunk.
    """
    whole = hashlib.sha256()
    chunks = []
    with ThreadPoolExecutor(1, "raygrid-digests") as beside:
        for piece in pieces:
            chunk = beside.submit(_digest, piece)
            whole.update(piece)
            chunks.append(chunk.result())
    return whole.hexdigest(), b"".join(chunks) if len(chunks) > 1 else None


def _digest(piece: bytes | memoryview) -> bytes:
    return hashlib.sha256(piece).digest()


def pieces_of(data: bytes) -> Iterable[memoryview]:
    """Split bytes into pieces for `digests`."""
    view = memoryview(data)
    return (view[start : start + CHUNK] for start in range(0, len(data), CHUNK))


class CheckedBlob:
    """A blob whose chunks are compared with their digests (`chunks`) when they are read. The methods block."""

    def __init__(self, blobs: BlobStore, blob: BlobSlice, chunks: bytes) -> None:
        self._blobs = blobs
        self.blob = blob
        self._chunks = chunks
        self._copy: bytes | None = None

    @property
    def has_other_copy(self) -> bool:
        """Whether another copy is read instead of the blob."""
        return self._copy is not None

    def use(self, copy: bytes) -> None:
        """Read another copy from now on; the caller has compared it with the digest of the whole."""
        self._copy = copy

    def read_now(self, first: int, most: int = TOGETHER) -> bytes:
        """Read up to `most` chunks from chunk number `first` on; empty after the end.

        Raises:
            BlobDamagedError: a chunk differs from its digest, or is missing.
            BlobNotFoundError: the blob is gone.
        """
        start = first * CHUNK
        size = max(0, min(most * CHUNK, self.blob.size - start))
        if self._copy is not None:
            return self._copy[start : start + size]
        data = self._blobs.read_now(BlobSlice(self.blob.key, self.blob.offset + start, size, ""))
        for number, piece in enumerate(pieces_of(data), first):
            if _digest(piece) != self._chunks[number * _LENGTH : (number + 1) * _LENGTH]:
                raise BlobDamagedError(
                    f"blob {self.blob.key} is damaged: its bytes {number * CHUNK} to {number * CHUNK + len(piece)} "
                    "differ from what was stored (sha256 differs)"
                )
        return data

    def check_now(self) -> None:
        """Read and check the whole blob; raises the errors of `read_now`."""
        for first in range(0, -(-self.blob.size // CHUNK), TOGETHER):
            self.read_now(first)

    def open(self) -> io.BufferedIOBase:
        """Open the blob as a seekable file."""
        return io.BufferedReader(_CheckedFile(self))


class _CheckedFile(io.RawIOBase):
    """A checked blob as a raw file; it keeps the chunks that were read last."""

    def __init__(self, blob: CheckedBlob) -> None:
        self._source = blob
        self._size = blob.blob.size
        self._at = 0
        self._held = b""
        self._first = 0  # number of the first chunk in `_held`
        self._next = -1  # number of the chunk after `_held`

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read from the position, up to the end of the chunks in memory."""
        if self._at >= self._size:
            return 0
        number = self._at // CHUNK
        if not self._first <= number < self._next:
            # Sequential reads fetch more chunks at once.
            self._held = self._source.read_now(number, TOGETHER if number == self._next else 1)
            self._first, self._next = number, number + -(-len(self._held) // CHUNK)
        start = self._at - self._first * CHUNK
        part = self._held[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
