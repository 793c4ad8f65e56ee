"""Finds, for new jobs, earlier ones whose stored result they may take over instead of running.

Only for pricers with `reuse: content`. What is found is a proposal: the job store looks again as it inserts the job.
Whatever is in doubt here (a blob that is gone, a blob store that does not answer) means that the job runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from raygrid.blobs import BlobStore
from raygrid.errors import UnavailableError
from raygrid.models import NewJob
from raygrid.settings.content_key import Contents
from raygrid.settings.model import GridSettings
from raygrid.store import JobStore
from raygrid.transport.batching import Coalescer

logger = logging.getLogger(__name__)

LOOK_S = 10.0
LOOKS = 4  # at once; one that hangs keeps its thread, and must not take them all


class Reuse:
    """Looks for results that new jobs may take over. The owner closes it.

    Args:
        settings: the grid's settings.
        store: the job store.
        blobs: the blob store.
    """

    def __init__(self, settings: GridSettings, store: JobStore, blobs: BlobStore) -> None:
        self._settings = settings
        self._store = store
        self._blobs = blobs
        self._contents = Contents()
        self._finds: Coalescer[str, str | None] = Coalescer(self._find, name="reuse")
        self._turns = asyncio.Semaphore(LOOKS)
        self._under_way: set[asyncio.Future[Mapping[str, int]]] = set()

    async def close(self) -> None:
        """Finish what was asked; wait for no blob store that hangs."""
        await self._finds.close()
        for look in list(self._under_way):
            look.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def with_sources(self, jobs: Sequence[NewJob]) -> list[NewJob]:
        """The same jobs, each with the earlier one that it may share a result with, if there is one.

        Raises:
            UnavailableError: the job store cannot be asked.
        """
        pricers = self._settings.pricers
        contents = [self._contents.key(job.spec, pricers.get(job.spec.pricer)) for job in jobs]
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
        """The job whose result lies ready, for each content."""
        found = await self._store.reusable(list(dict.fromkeys(contents)))
        sizes = await self._sizes({job.result.key for job in found.values()})
        there = {
            content: job.job_id
            for content, job in found.items()
            if sizes.get(job.result.key, -1) >= job.result.offset + job.result.size
        }
        if len(there) < len(found):
            logger.warning("%d results are not found in the blob store; their jobs run anew", len(found) - len(there))
        return [there.get(content) for content in contents]

    async def _sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        """How large those of these blobs are that are known to be there."""
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
            logger.warning("cannot see whether results are there: %s", error or f"no answer for {LOOK_S:g} s")
            return {}

    def _ended(self, look: asyncio.Future[Mapping[str, int]]) -> None:
        self._under_way.discard(look)
        self._turns.release()
        if not look.cancelled():
            look.exception()  # whoever waits for it gets it; nobody may
