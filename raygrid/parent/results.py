"""Finds the bytes of results: in the cache of the node that made them or in the blob store, whichever is nearer."""

from __future__ import annotations

import asyncio
import io
import logging
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from raygrid.blobs import BlobStore
from raygrid.core.sources import NodePlace, Source, choose_source
from raygrid.errors import (
    BlobNotFoundError,
    JobCancelledError,
    JobFailedError,
    NotFinishedError,
    ResultExpiredError,
)
from raygrid.models import DoneJob, Job, JobState
from raygrid.parent.traffic import ParentTraffic
from raygrid.ports import ResultCaches

logger = logging.getLogger(__name__)

SMALL = 4 * 1024**2
AT_HAND = 64 * 1024


def require_result(job: Job | DoneJob, *, even_if_failed: bool = False) -> None:
    """Say why a job has no result to give, if it has none.

    Raises:
        NotFinishedError: it has not ended.
        ResultExpiredError: it was purged.
        JobCancelledError: it was cancelled.
        JobFailedError: it failed, and the caller did not ask for the ZIP all the same (or there is none).
    """
    if not job.state.is_terminal:
        raise NotFinishedError(f"job {job.job_id} is {job.state.value}; its result is not there yet", state=job.state)
    if job.purged_at is not None:
        raise gone(job)
    if job.state is JobState.CANCELLED:
        raise JobCancelledError(f"job {job.job_id} was cancelled")
    if job.state is JobState.FAILED and not (even_if_failed and job.result is not None):
        raise JobFailedError(
            f"job {job.job_id} failed: {job.message or job.reason}",
            job_id=job.job_id,
            reason=job.reason,
            exit_code=job.exit_code,
            stderr_tail=job.stderr_tail,
        )


class Results:
    """Reads results of ended jobs.

    Args:
        blobs: the blob store.
        caches: the nodes' caches.
        place_of: where a node stands and its cache is reached, if the node is there.
        traffic: counts what is read.
        home: the group of the rack in which this parent stands, if it stands in one.
        blobs_are_here: whether the blob store is a directory of the one machine that the grid has.
    """

    def __init__(
        self,
        blobs: BlobStore,
        caches: ResultCaches,
        place_of: Callable[[str], NodePlace | None],
        traffic: ParentTraffic,
        home: str | None = None,
        *,
        blobs_are_here: bool = False,
    ) -> None:
        self._blobs = blobs
        self._caches = caches
        self._place_of = place_of
        self._traffic = traffic
        self._home = home
        self._blobs_are_here = blobs_are_here

    async def read(self, jobs: Sequence[Job | DoneJob]) -> list[bytes | None]:
        """The ZIPs of many jobs; None for one that has none (any more). Those of one pack are fetched together."""
        packs: dict[tuple[str, str], list[int]] = {}
        for index, job in enumerate(jobs):
            if job.result is not None and job.purged_at is None:
                packs.setdefault((job.node_id or "", job.result.key), []).append(index)
        found: list[bytes | None] = [None] * len(jobs)

        async def fetch(node_id: str, key: str, indexes: list[int]) -> None:
            place = self._place_of(node_id)
            sizes = [result.size for i in indexes if (result := jobs[i].result) is not None]
            here = self._blobs_are_here
            first = choose_source(self._home, place, sum(sizes), len(sizes), blobs_are_here=here)
            if place is not None and first is Source.CACHE:
                await self._from_cache(place, key, jobs, indexes, found)
            for i in indexes:
                if found[i] is None:
                    found[i] = await self._blob(jobs[i])
            gone = [i for i in indexes if found[i] is None]
            if gone and place is not None and first is Source.BLOBS:
                await self._from_cache(place, key, jobs, gone, found)

        await asyncio.gather(*(fetch(node_id, key, indexes) for (node_id, key), indexes in packs.items()))
        return found

    async def read_one(self, job: Job | DoneJob) -> bytes:
        """The ZIP of a job that has one.

        Raises:
            ResultExpiredError: it is gone.
        """
        [data] = await self.read([job])
        if data is None:
            raise gone(job)
        return data

    async def _from_cache(
        self,
        place: NodePlace,
        key: str,
        jobs: Sequence[Job | DoneJob],
        indexes: Sequence[int],
        found: list[bytes | None],
    ) -> None:
        if not place.address:
            return
        cached = await self._caches.results(place.address, key, [jobs[i].job_id for i in indexes])
        for i, data in zip(indexes, cached, strict=True):
            result = jobs[i].result
            # A cache may know another attempt's result of the job; only the recorded one is visible.
            if data is not None and result is not None and len(data) == result.size:
                found[i] = data
                self._traffic.count("from_cache", place.group_id, len(data))

    async def _blob(self, job: Job | DoneJob) -> bytes | None:
        assert job.result is not None
        just_told = self._blobs_are_here and isinstance(job, DoneJob) and job.result.size <= AT_HAND
        try:
            # What was written on this machine a moment ago is in its memory: to change to a thread would take longer.
            data = self._blobs.read_now(job.result) if just_told else await self._blobs.read(job.result)
        except BlobNotFoundError as error:
            logger.warning("the result of job %s is not in the blob store: %s", job.job_id, error)
            return None
        self._traffic.count("from_blobs", job.group_id, len(data))
        return data

    def is_large(self, job: Job | DoneJob) -> bool:
        """Whether there is a ZIP that is too large to be held in memory."""
        return job.result is not None and job.purged_at is None and job.result.size > SMALL

    async def stream(self, job: Job | DoneJob) -> AsyncIterator[bytes]:
        """The ZIP of a job in chunks.

        Raises:
            ResultExpiredError: it is gone; this is known before the first chunk is given.
        """
        assert job.result is not None
        chunks = self._counted(self._blobs.stream(job.result), job.group_id)
        try:
            first = await anext(chunks)
        except BlobNotFoundError as error:
            raise gone(job) from error
        return _chained(first, chunks)

    async def _counted(self, chunks: AsyncIterator[bytes], group_id: str) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self._traffic.count("from_blobs", group_id, len(chunk))
            yield chunk

    async def stdout(self, job: Job | DoneJob) -> AsyncIterator[bytes]:
        """What the pricer of a job printed, in chunks.

        Raises:
            ResultExpiredError: it is gone; this is known before the first chunk is given.
        """
        if self.is_large(job):
            assert job.result is not None
            source: io.BytesIO | io.BufferedIOBase = self._blobs.open_now(job.result)
            chunks = _thread_chunks(
                _entry_chunks(source, "stdout.txt", lambda read: self._traffic.count("from_blobs", job.group_id, read))
            )
        else:
            chunks = _thread_chunks(_entry_chunks(io.BytesIO(await self.read_one(job)), "stdout.txt"))
        try:
            first = await anext(chunks, b"")
        except BlobNotFoundError as error:
            raise gone(job) from error
        return _chained(first, chunks)


def gone(job: Job | DoneJob) -> ResultExpiredError:
    """What to say of a job whose result was there once."""
    if job.purged_at is not None:
        return ResultExpiredError(
            f"the result of job {job.job_id} was removed when its retention ended; submit it under a new "
            "jobId to run it again"
        )
    return ResultExpiredError(
        f"the result of job {job.job_id} is gone from the blob store; submit it under a new jobId to run it again"
    )


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _thread_chunks(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk


def _entry_chunks(
    source: io.BytesIO | io.BufferedIOBase, name: str, count: Callable[[int], None] | None = None
) -> Iterator[bytes]:
    with zipfile.ZipFile(source) as archive, archive.open(name) as entry:
        if count is not None:  # what is read of the ZIP: this entry as it is stored, and little else
            count(archive.getinfo(name).compress_size)
        while chunk := entry.read(SMALL):
            yield chunk
