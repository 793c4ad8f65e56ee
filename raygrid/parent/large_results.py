"""Streams results that are too large for memory: reads them in pieces and checks each piece before sending it.

The status of an answer is sent before its first piece. If a later piece is damaged and there is no other copy, the
answer is aborted, so that clients do not take it as complete, and the next request for that result checks the whole
result before it is answered.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import TypeVar

from raygrid.blobs import BlobStore
from raygrid.blobs.chunks import CHUNK, TOGETHER, CheckedBlob, digests, pieces_of
from raygrid.errors import BlobDamagedError, BlobNotFoundError, RaygridError
from raygrid.models import BlobSlice, DoneJob, StoredJob
from raygrid.parent.traffic import ParentTraffic
from raygrid.parent.whole_blob import started

PIECE = TOGETHER * CHUNK
REMEMBERED = 256

Value = TypeVar("Value")


class LargeResults:
    """Streams large results from the blob store.

    Args:
        other_copy: returns the checked copy in the cache of the job's node, if there is one.
        damaged: notes that the stored copy is damaged or gone, and returns the error to raise.
        chunks_of: returns the recorded digests of a result's chunks.
    """

    def __init__(
        self,
        blobs: BlobStore,
        traffic: ParentTraffic,
        other_copy: Callable[[StoredJob | DoneJob], Awaitable[bytes | None]],
        damaged: Callable[[StoredJob | DoneJob, BlobNotFoundError], Awaitable[RaygridError]],
        chunks_of: Callable[[str], Awaitable[bytes | None]] | None = None,
    ) -> None:
        self._blobs = blobs
        self._traffic = traffic
        self._other_copy = other_copy
        self._damaged = damaged
        self._chunks_of = chunks_of
        # Digests of chunks, computed here for results of older releases, which recorded none.
        self._made: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        # Results whose answer was aborted.
        self._suspects: OrderedDict[tuple[str, int], None] = OrderedDict()

    async def stream(self, job: StoredJob | DoneJob) -> AsyncIterator[bytes]:
        """The ZIP of a job in pieces; the first piece is checked before this returns.

        Raises:
            RaygridError: the result is gone or its first piece is damaged; for later pieces, the iterator raises it.
        """
        blob = await self._opened(job)
        return await started(self._pieces(job, blob))

    async def stdout(self, job: StoredJob | DoneJob) -> AsyncIterator[bytes]:
        """The standard output of a job in pieces; like `stream`."""
        blob = await self._opened(job)
        return await started(self._printed(job, blob))

    async def _opened(self, job: StoredJob | DoneJob) -> CheckedBlob:
        """A result with the digests of its chunks; if an answer was aborted before, all of it is checked first."""
        assert job.result is not None
        place = job.result[:2]
        try:
            chunks = self._made.get(place)
            if chunks is None and self._chunks_of is not None:
                chunks = await self._chunks_of(job.job_id)
            if chunks is None:
                chunks = await asyncio.to_thread(self._survey, job.result)
                _remember(self._made, place, chunks)
            blob = CheckedBlob(self._blobs, job.result, chunks)
            if place in self._suspects:
                await asyncio.to_thread(blob.check_now)
                self._suspects.pop(place, None)
        except BlobNotFoundError as error:
            blob = CheckedBlob(self._blobs, job.result, b"")
            await self._use_other_copy(job, blob, error)
        return blob

    def _survey(self, blob: BlobSlice) -> bytes:
        """Read a whole result, compare it with its digest, and compute the digests of its chunks."""
        starts = range(0, blob.size, PIECE)
        parts = (BlobSlice(blob.key, blob.offset + at, min(PIECE, blob.size - at), "") for at in starts)
        whole, chunks = digests(piece for part in parts for piece in pieces_of(self._blobs.read_now(part)))
        if whole != blob.digest:
            raise BlobDamagedError(f"blob {blob.key} is damaged: it differs from what was stored (sha256 differs)")
        return chunks or b""

    async def _use_other_copy(self, job: StoredJob | DoneJob, blob: CheckedBlob, error: BlobNotFoundError) -> None:
        """Continue with the node's copy of a result whose stored copy is damaged or gone.

        Raises:
            RaygridError: there is no other copy.
        """
        why = await self._damaged(job, error)
        copy = await self._other_copy(job)
        if copy is None:
            _remember(self._suspects, blob.blob[:2], None)
            raise why from error
        blob.use(copy)

    async def _pieces(self, job: StoredJob | DoneJob, blob: CheckedBlob) -> AsyncIterator[bytes]:
        starts = range(0, -(-blob.blob.size // CHUNK), TOGETHER)
        # The next piece is read and checked while the previous one is sent.
        coming = asyncio.ensure_future(asyncio.to_thread(blob.read_now, 0))
        try:
            for first in starts:
                try:
                    piece = await coming
                except BlobNotFoundError as error:
                    await self._use_other_copy(job, blob, error)
                    piece = blob.read_now(first)
                if not blob.has_other_copy:
                    self._traffic.count("from_blobs", job.group_id, len(piece))
                coming = asyncio.ensure_future(asyncio.to_thread(blob.read_now, first + TOGETHER))
                yield piece
        finally:
            if coming.done() and not coming.cancelled():
                coming.exception()  # marks it as retrieved
            coming.cancel()

    async def _printed(self, job: StoredJob | DoneJob, blob: CheckedBlob) -> AsyncIterator[bytes]:
        given = 0
        try:
            count = None if blob.has_other_copy else partial(self._traffic.count, "from_blobs", job.group_id)
            async for piece in stdout_of(blob.open(), count):
                given += len(piece)
                yield piece
        except BlobNotFoundError as error:
            await self._use_other_copy(job, blob, error)
        else:
            return
        async for piece in stdout_of(blob.open()):
            if new := piece[given:]:
                yield new
            given = max(0, given - len(piece))


def _remember(known: OrderedDict[tuple[str, int], Value], place: tuple[str, int], value: Value) -> None:
    known[place] = value
    while len(known) > REMEMBERED:
        known.popitem(last=False)


async def stdout_of(
    source: io.BytesIO | io.BufferedIOBase, count: Callable[[int], None] | None = None
) -> AsyncIterator[bytes]:
    """The standard output of a pricer from its ZIP, unpacked in a thread; `count` gets the number of bytes read."""
    pieces = _entry_pieces(source, "stdout.txt", count)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _entry_pieces(
    source: io.BytesIO | io.BufferedIOBase, name: str, count: Callable[[int], None] | None
) -> Iterator[bytes]:
    with zipfile.ZipFile(source) as archive, archive.open(name) as entry:
        if count is not None:  # reads little more than this entry
            count(archive.getinfo(name).compress_size)
        while piece := entry.read(PIECE):
            yield piece
