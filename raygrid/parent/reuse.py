"""Finds earlier jobs whose stored result new jobs can take over instead of running.

Only for pricers with `reuse: content`. A finding is a proposal: the job store checks it again when it inserts the job.
In doubt (a blob is gone, the blob store does not answer), the job runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from raygrid.blobs import BlobStore
from raygrid.errors import UnavailableError
from raygrid.models import NewJob
from raygrid.settings.content_key import ContentKeys
from raygrid.settings.model import GridSettings
from raygrid.store import JobStore
from raygrid.transport.batching import Coalescer

logger = logging.getLogger(__name__)

LOOK_S = 10.0
LOOKS = 4  # at once, because a call that hangs keeps its thread


class Reuse:
    """Looks for results that new jobs can take over. The owner closes it."""

    def __init__(self, settings: GridSettings, store: JobStore, blobs: BlobStore) -> None:
        self._settings = settings
        self._store = store
        self._blobs = blobs
        self._content_keys = ContentKeys()
        self._finds: Coalescer[str, str | None] = Coalescer(self._find, name="reuse")
        self._turns = asyncio.Semaphore(LOOKS)
        self._under_way: set[asyncio.Future[Mapping[str, int]]] = set()

    async def close(self) -> None:
        """Finish the queries of the job store and cancel calls of the blob store."""
        await self._finds.close()
        for look in list(self._under_way):
            look.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def with_sources(self, jobs: Sequence[NewJob]) -> list[NewJob]:
        """The same jobs; each one whose result exists names the earlier job as its source.

        Raises:
            UnavailableError: the job store cannot be reached.
        """
        pricers = self._settings.pricers
        contents = [self._content_keys.key(job.spec, pricers.get(job.spec.pricer)) for job in jobs]
        wanted = list({content: None for content in contents if content is not None})
        if not wanted:
            return list(jobs)
        found = [await self._finds.put(wanted[0])] if len(wanted) == 1 else await self._find(wanted)
        sources = dict(zip(wanted, found, strict=True))
        return [
            replace(job, source=sources[content]) if content is not None else job
            for job, content in zip(jobs, contents, strict=True)
        ]

    async def _find(self, contents: Sequence[str]) -> list[str | None]:
        """The job whose result is stored, for each content key."""
        found = await self._store.reusable(list(dict.fromkeys(contents)))
        sizes = await self._sizes({job.result.key for job in found.values()})
        there = {
            content: job.job_id
            for content, job in found.items()
            if sizes.get(job.result.key, -1) >= job.result.offset + job.result.size
        }
        if len(there) < len(found):
            logger.warning("%d reusable results are not in the blob store; running the jobs", len(found) - len(there))
        return [there.get(content) for content in contents]

    async def _sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        """The sizes of the blobs that are known to exist; empty if the blob store does not answer."""
        if not keys:
            return {}
        try:
            async with asyncio.timeout(LOOK_S):
                await self._turns.acquire()
                look = asyncio.ensure_future(self._blobs.sizes(keys))
                self._under_way.add(look)
                look.add_done_callback(self._ended)
                return await asyncio.shield(look)
        except (TimeoutError, UnavailableError) as error:
            why = str(error) or f"no answer within {LOOK_S:g} s"
            logger.warning("the blob store cannot be asked for reusable results; running the jobs: %s", why)
            return {}

    def _ended(self, look: asyncio.Future[Mapping[str, int]]) -> None:
        self._under_way.discard(look)
        self._turns.release()
        if not look.cancelled():
            look.exception()  # marks it as retrieved, because the caller may have stopped waiting
