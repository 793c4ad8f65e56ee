"""Streams a whole blob and compares it with its digest before its last piece is given."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

from raygrid.blobs import BlobStore
from raygrid.errors import BlobDamagedError
from raygrid.models import BlobSlice

PIECE = 2 * 1024**2


async def whole_blob(blobs: BlobStore, key: str, size: int, digest: str) -> AsyncIterator[bytes]:
    """The pieces of a blob; none is longer than `PIECE`.

    Raises:
        BlobNotFoundError: it is gone or damaged. Its last piece has not been given then, so that a reader who expects
            `size` bytes does not take what it has for the whole.
    """
    seen = hashlib.sha256()
    for at in range(0, size, PIECE):
        part = BlobSlice(key, at, min(PIECE, size - at), "")
        piece = await blobs.read(part)
        seen.update(piece)
        if at + PIECE >= size and seen.hexdigest() != digest:
            raise BlobDamagedError(f"blob {key} is damaged: it differs from what was stored (sha256 differs)")
        yield piece


async def started(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same pieces; the first is read before this returns, so that its error becomes the answer of a request."""
    first = await anext(pieces, b"")

    async def chained() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return chained()
