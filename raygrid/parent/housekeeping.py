"""Retention: removes results and inputs of jobs that ended long ago, and blobs that no job refers to.

A job is marked as purged before its blobs are removed, so that no answer refers to a removed blob. A content of
shared data is removed when no name has referred to it during the retention, and no unfinished job needs it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime, timedelta

from raygrid.blobs import BlobStore, data_key, day_of
from raygrid.store import JobStore

logger = logging.getLogger(__name__)

ABANDONED = timedelta(days=1)
DATA_KEPT = timedelta(hours=1)  # at least: a submit may just have looked up what a name referred to
DEFINITIONS_KEPT = timedelta(days=1)  # at least; parents store the definitions they use more often (`definitions.py`)


class Housekeeping:
    """Purges regularly. The owner opens and closes it.

    Args:
        retention: how long a job's input and result are kept after its end.
        every_s: mean time between rounds; it varies at random, so that parents seldom purge at the same time.
    """

    def __init__(self, store: JobStore, blobs: BlobStore, retention: timedelta, every_s: float) -> None:
        self._store = store
        self._blobs = blobs
        self._retention = retention
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start purging."""
        self._task = asyncio.get_running_loop().create_task(self._forever(), name="housekeeping")

    async def close(self) -> None:
        """Stop purging."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(self._every_s * random.uniform(0.75, 1.25))
            try:
                await self.purge()
                await self.sweep()
            except Exception:
                logger.exception("a round of housekeeping failed; the next one tries again")

    async def purge(self, now: datetime | None = None) -> int:
        """Purge jobs whose retention has ended; returns how many."""
        await self._blobs.require()  # another grid's blobs must not be removed
        now = now or datetime.now(UTC)
        before = now - self._retention
        total = 0
        while True:
            purged = await self._store.purge(before)
            await self._blobs.delete(key for key in purged.blob_keys if self._may_go(key))
            total += purged.jobs
            if not purged.jobs:
                break
        await self._store.purge_definitions(min(before, now - DEFINITIONS_KEPT))
        unneeded = await self._store.start_purge_of_data(min(before, now - DATA_KEPT))
        await self._blobs.delete(map(data_key, unneeded))
        await self._store.end_purge_of_data(unneeded)
        return total

    def _may_go(self, key: str) -> bool:
        """Whether no new submit can share this blob: inputs are shared within a day only."""
        if key.startswith("results/"):
            return True
        day = day_of(key)
        return day is not None and datetime.now(UTC) - day > 2 * ABANDONED

    async def sweep(self) -> int:
        """Remove old blobs that no job refers to, such as broken uploads and unused results; returns how many."""
        await self._blobs.require()
        removed = 0
        kept = self._retention + 2 * ABANDONED
        for prefix, age in (("uploads/", ABANDONED), ("inputs/", kept), ("results/", kept)):
            async for page in self._blobs.list_older(prefix, age):
                in_use = await self._store.blobs_in_use(page) if prefix != "uploads/" else set()
                orphans = [key for key in page if key not in in_use]
                await self._blobs.delete(orphans)
                removed += len(orphans)
        return removed
