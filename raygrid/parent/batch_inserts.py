"""Stores the jobs of batches: requests that add to one batch while a write is under way share the next transaction.

All writers of a job store wait for one another, on every machine. With a transaction for each request, requests that
clients repeat after a timeout would make the wait longer, and with it the number of timeouts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from raygrid.errors import UnavailableError
from raygrid.models import NewJob
from raygrid.store.port import Inserted, JobStore
from raygrid.transport.batching import Coalescer

MOST_JOBS = 100  # a larger request has a transaction of its own
MOST_REQUESTS = 50  # in one transaction


class _Batch(NamedTuple):
    """Requests that may share a transaction: the store accepts or refuses their batch for all of them."""

    batch_id: str
    owner: str
    may_join_unowned: bool


class BatchInserts:
    """Inserts jobs into batches. The owner closes it."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._writes: dict[_Batch, Coalescer[Sequence[NewJob], list[Inserted]]] = {}
        self._closed = False

    async def insert(self, jobs: Sequence[NewJob], batch_id: str, owner: str) -> list[Inserted]:
        """See `JobStore.insert`; the write is completed even if the caller is cancelled.

        Raises:
            ConflictError: the batch is another owner's.
            UnavailableError: closed.
        """
        if self._closed:
            raise UnavailableError("this parent ends; try again")
        if len(jobs) > MOST_JOBS:
            return await asyncio.shield(asyncio.ensure_future(self._store.insert(jobs, batch_id, owner)))
        batch = _Batch(batch_id, owner, all(job.may_join_unowned for job in jobs))
        writes = self._writes.get(batch)
        if writes is None:
            send = partial(self._insert_all, batch_id, owner)
            writes = self._writes[batch] = Coalescer(send, max_batch=MOST_REQUESTS, name=f"jobs of batch {batch_id}")
        try:
            return await writes.put(jobs)
        finally:
            if writes.is_idle:
                self._writes.pop(batch, None)

    async def _insert_all(
        self, batch_id: str, owner: str, requests: Sequence[Sequence[NewJob]]
    ) -> Sequence[list[Inserted]]:
        found = iter(await self._store.insert([job for jobs in requests for job in jobs], batch_id, owner))
        return [[next(found) for _ in jobs] for jobs in requests]

    async def close(self) -> None:
        """Accept no more jobs, and finish the writes that have begun."""
        self._closed = True
        await asyncio.gather(*(writes.close() for writes in list(self._writes.values())))
