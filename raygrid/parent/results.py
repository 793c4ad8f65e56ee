"""Reads results from the cache of the node that made them or from the blob store, whichever is nearer.

All bytes are compared with the recorded digest of the result. If one copy is damaged or gone, the other is used. Large
results, which are read in chunks, are in `large_results.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeAlias

from raygrid.blobs import BlobStore
from raygrid.core.result_sources import NodePlace, Source, choose_source
from raygrid.errors import (
    BlobDamagedError,
    BlobNotFoundError,
    DamagedResultError,
    JobCancelledError,
    JobFailedError,
    NotFinishedError,
    ResultExpiredError,
    UnavailableError,
)
from raygrid.models import BlobSlice, DoneJob, JobState, StoredJob
from raygrid.parent.large_results import LargeResults, stdout_of
from raygrid.parent.traffic import ParentTraffic
from raygrid.transport.ports import ResultCaches

logger = logging.getLogger(__name__)

MOST_IN_MEMORY = 4 * 1024**2  # bytes, of one result
MOST_READ_AT_ONCE = 64 * 1024  # bytes, in the event loop
MOST_HASHED_AT_ONCE = 1024**2  # bytes, in the event loop; takes half a millisecond

Found: TypeAlias = bytes | ResultExpiredError | DamagedResultError | None


def require_result(job: StoredJob | DoneJob, *, even_if_failed: bool = False) -> None:
    """Check that a job has a result.

    Raises:
        NotFinishedError: it has not ended.
        ResultExpiredError: it was purged.
        JobCancelledError: it was cancelled.
        JobFailedError: it failed, and there is no ZIP or the caller did not ask for it (`even_if_failed`).
    """
    if not job.state.is_terminal:
        raise NotFinishedError(f"job {job.job_id} is {job.state.value}; it has no result yet", state=job.state)
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
            has_result=job.result is not None,
        )


class ResultReader:
    """Reads results of ended jobs.

    Args:
        place_of: returns the group of a node and the address of its cache, if the node is known.
        home: the group of this parent's rack, if it runs in one.
        blobs_are_here: whether the blob store is a directory of the grid's only machine.
        chunks_of: returns the digests of the chunks of a job's result (`JobStore.result_chunks`).
        on_damage: called with a result whose stored copy is damaged (`JobStore.stop_reuse`).
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
        chunks_of: Callable[[str], Awaitable[bytes | None]] | None = None,
        on_damage: Callable[[BlobSlice], Awaitable[object]] | None = None,
    ) -> None:
        self._blobs = blobs
        self._caches = caches
        self._place_of = place_of
        self._traffic = traffic
        self._home = home
        self._blobs_are_here = blobs_are_here
        self._on_damage = on_damage
        self._large = LargeResults(blobs, traffic, self._cached_alone, self._damaged, chunks_of)

    async def read(self, jobs: Sequence[StoredJob | DoneJob]) -> list[Found]:
        """The ZIPs of many jobs; those in one pack are fetched together.

        A ZIP that is gone or damaged is replaced by the error, a job without a result by None.
        """
        packs: dict[tuple[str, str], list[int]] = {}
        for index, job in enumerate(jobs):
            if job.result is not None and job.purged_at is None:
                packs.setdefault((job.node_id or "", job.result.key), []).append(index)
        found: list[Found] = [None] * len(jobs)

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
            missing = [i for i in indexes if not isinstance(found[i], bytes)]
            if missing and place is not None and first is Source.BLOBS:
                await self._from_cache(place, key, jobs, missing, found)

        await asyncio.gather(*(fetch(node_id, key, indexes) for (node_id, key), indexes in packs.items()))
        return found

    async def read_one(self, job: StoredJob | DoneJob) -> bytes:
        """The ZIP of a job that has one.

        Raises:
            ResultExpiredError: it is gone.
            DamagedResultError: every copy is damaged.
        """
        [data] = await self.read([job])
        if data is None:
            raise gone(job)
        if not isinstance(data, bytes):
            raise data
        return data

    async def _from_cache(
        self,
        place: NodePlace,
        key: str,
        jobs: Sequence[StoredJob | DoneJob],
        indexes: Sequence[int],
        found: list[Found],
    ) -> None:
        if not place.address:
            return
        cached = await self._caches.results(place.address, key, [jobs[i].job_id for i in indexes])
        is_little = sum([len(data) for data in cached if data is not None]) <= MOST_HASHED_AT_ONCE
        for i, data in zip(indexes, cached, strict=True):
            result = jobs[i].result
            # A cache may have the result of another attempt; only the recorded one is visible.
            if data is None or result is None or len(data) != result.size:
                continue
            # Much data is compared in a thread, because it would block the event loop.
            digest = sha256_of(data) if is_little else await asyncio.to_thread(sha256_of, data)
            if digest != result.digest:
                job = jobs[i]
                logger.error("node %s has a damaged copy of the result of job %s; ignoring it", job.node_id, job.job_id)
                continue
            found[i] = data
            self._traffic.count("from_cache", place.group_id, len(data))

    async def _cached_alone(self, job: StoredJob | DoneJob) -> bytes | None:
        """The checked copy of one result in its node's cache, if there is one."""
        place = self._place_of(job.node_id or "")
        found: list[Found] = [None]
        if place is not None and job.result is not None:
            await self._from_cache(place, job.result.key, [job], [0], found)
        return found[0] if isinstance(found[0], bytes) else None

    async def _blob(self, job: StoredJob | DoneJob) -> Found:
        assert job.result is not None
        is_cached = self._blobs_are_here and isinstance(job, DoneJob) and job.result.size <= MOST_READ_AT_ONCE
        try:
            # A small file that was just written is in the page cache: reading it is faster than switching to a thread.
            data = self._blobs.read_now(job.result) if is_cached else await self._blobs.read(job.result)
        except BlobNotFoundError as error:
            return await self._damaged(job, error)
        self._traffic.count("from_blobs", job.group_id, len(data))
        return data

    async def _damaged(
        self, job: StoredJob | DoneJob, error: BlobNotFoundError
    ) -> ResultExpiredError | DamagedResultError:
        """Note that the stored copy of a result is damaged or gone; returns the error for a client."""
        if not isinstance(error, BlobDamagedError):
            logger.warning("the result of job %s is not in the blob store; using another copy: %s", job.job_id, error)
            return gone(job)
        logger.error("the stored result of job %s is damaged; using another copy: %s", job.job_id, error)
        if self._on_damage is not None and job.result is not None:
            try:
                await self._on_damage(job.result)
            except UnavailableError as away:
                logger.warning("the damaged result of job %s cannot be excluded from reuse: %s", job.job_id, away)
        return damaged(job)

    def is_large(self, job: StoredJob | DoneJob) -> bool:
        """Whether a job has a ZIP that is too large for memory."""
        return job.result is not None and job.purged_at is None and job.result.size > MOST_IN_MEMORY

    async def stream(self, job: StoredJob | DoneJob) -> AsyncIterator[bytes]:
        """The ZIP of a job in pieces, for large ones; see `LargeResults.stream`."""
        return await self._large.stream(job)

    async def stdout(self, job: StoredJob | DoneJob) -> AsyncIterator[bytes]:
        """The standard output of a job in pieces; errors as in `stream`."""
        if self.is_large(job):
            return await self._large.stdout(job)
        return stdout_of(io.BytesIO(await self.read_one(job)))


def sha256_of(data: bytes) -> str:
    """The digest of bytes in the form in which it is recorded."""
    return hashlib.sha256(data).hexdigest()


def damaged(job: StoredJob | DoneJob) -> DamagedResultError:
    """The error for a job without an intact copy of its result."""
    return DamagedResultError(
        f"the stored result of job {job.job_id} is damaged (its digest differs from the recorded one), and there is no "
        "other copy; submit the input under a new jobId to run it again"
    )


def gone(job: StoredJob | DoneJob) -> ResultExpiredError:
    """The error for a job whose result no longer exists."""
    why = "was removed when its retention ended" if job.purged_at is not None else "is gone from the blob store"
    return ResultExpiredError(
        f"the result of job {job.job_id} {why}; submit the input under a new jobId to run it again"
    )
