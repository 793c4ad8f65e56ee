"""Digests of a large blob's chunks, so that each can be checked before any byte of it is given out.

A blob of up to `CHUNK` bytes has one digest, that of the whole. A larger one has a digest for every chunk as well: they
are kept one after the other, 32 bytes each, as `JobStore.result_chunks` gives them.
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
TOGETHER = 2  # chunks in one read: a request to an object store costs as much as a megabyte or two
_LENGTH = hashlib.sha256().digest_size


def digests(pieces: Iterable[bytes | memoryview]) -> tuple[str, bytes | None]:
    """Digest bytes in one pass; the chunks in a thread beside that of the whole, for it is twice the work.

    Args:
        pieces: the bytes in pieces of `CHUNK` bytes; the last one may be shorter.

    Returns:
        sha256 of the whole, hexadecimal, and the digests of the chunks; None for these where one chunk is all.
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
    """Bytes in memory, in pieces for `digests`."""
    view = memoryview(data)
    return (view[start : start + CHUNK] for start in range(0, len(data), CHUNK))


class CheckedBlob:
    """A blob whose chunks are compared with their digests as they are read; its methods are for threads.

    Args:
        blobs: the blob store.
        blob: where it lies.
        chunks: the digests of its chunks.
    """

    def __init__(self, blobs: BlobStore, blob: BlobSlice, chunks: bytes) -> None:
        self._blobs = blobs
        self.blob = blob
        self._chunks = chunks
        self._copy: bytes | None = None

    @property
    def has_other_copy(self) -> bool:
        """Whether another copy is read instead."""
        return self._copy is not None

    def use(self, copy: bytes) -> None:
        """Read from another copy from now on, one that was compared with the digest of the whole."""
        self._copy = copy

    def read_now(self, first: int, most: int = TOGETHER) -> bytes:
        """Chunks from the number `first` on, at most so many; empty behind the end.

        Raises:
            BlobDamagedError: a chunk is not what was recorded, or is missing.
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
                    f"blob {self.blob.key} is damaged: its bytes {number * CHUNK} to {number * CHUNK + len(piece)} are "
                    "not those that were recorded (sha256 differs)"
                )
        return data

    def check_now(self) -> None:
        """Read all of it once.

        Raises:
            BlobNotFoundError: as `read_now`.
        """
        for first in range(0, -(-self.blob.size // CHUNK), TOGETHER):
            self.read_now(first)

    def open(self) -> io.BufferedIOBase:
        """As a file that can be read and sought, from a thread."""
        return io.BufferedReader(_CheckedFile(self))


class _CheckedFile(io.RawIOBase):
    """A checked blob as a raw file; it holds the chunks that were read last."""

    def __init__(self, blob: CheckedBlob) -> None:
        self._source = blob
        self._size = blob.blob.size
        self._at = 0
        self._held = b""
        self._first = 0  # number of the first chunk that is held
        self._next = -1  # of the chunk behind them

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the blob."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read what comes next, as far as it lies in the chunks that are held then."""
        if self._at >= self._size:
            return 0
        number = self._at // CHUNK
        if not self._first <= number < self._next:
            # What is read from front to back is fetched in larger pieces.
            self._held = self._source.read_now(number, TOGETHER if number == self._next else 1)
            self._first, self._next = number, number + -(-len(self._held) // CHUNK)
        start = self._at - self._first * CHUNK
        part = self._held[start : start + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
