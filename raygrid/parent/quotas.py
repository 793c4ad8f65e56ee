"""Holds callers to the limits of their keys: unfinished jobs, and bytes of inputs and shared data.

What an owner uses is read from the job store at most twice per second; what this parent has accepted since is added.
With several parents, an owner can exceed a limit by what the others accept within that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from raygrid.core.access import Caller
from raygrid.errors import BusyError, TooLargeError
from raygrid.models import NewJob
from raygrid.store import JobStore

READ_EVERY_S = 0.5
RETRY_AFTER_S = 2.0
MOST_OWNERS = 1_000


@dataclass(slots=True)
class _Known:
    """What an owner uses, read at a time of the event loop."""

    jobs: int
    bytes: int
    at: float


class Quotas:
    """The limits of keys at one parent."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._known: dict[str, _Known] = {}

    async def require(self, caller: Caller, jobs: Sequence[NewJob]) -> None:
        """Count jobs that a caller submits; jobs that exist already count, too, until the next look at the store.

        Raises:
            TooLargeError: no grid that is empty could take these jobs.
            BusyError: the caller uses as much as it may; some of its jobs have to end first.
        """
        limits = caller.limits
        if not limits.need_usage:
            return
        size = sum(job.spec.input.size for job in jobs)
        if limits.queued_jobs is not None and len(jobs) > limits.queued_jobs:
            raise TooLargeError(
                f"{len(jobs)} jobs in one request are more than the {limits.queued_jobs} unfinished jobs that the key "
                f"{caller.key} may have; send fewer at once"
            )
        if limits.bytes is not None and size > limits.bytes:
            raise TooLargeError(f"the inputs have {size:,} bytes; the key {caller.key} may have {limits.bytes:,}")
        known = await self._use_of(caller.owner)
        if limits.queued_jobs is not None and known.jobs + len(jobs) > limits.queued_jobs:
            raise BusyError(
                f"{caller.owner} has {known.jobs} unfinished jobs, and the key {caller.key} allows "
                f"{limits.queued_jobs}; try again when some have ended",
                retry_after_s=RETRY_AFTER_S,
            )
        if limits.bytes is not None and known.bytes + size > limits.bytes:
            raise BusyError(
                f"the unfinished jobs and shared data of {caller.owner} have {known.bytes:,} bytes, and the key "
                f"{caller.key} allows {limits.bytes:,}; try again when some jobs have ended, or remove shared data",
                retry_after_s=RETRY_AFTER_S,
            )
        known.jobs += len(jobs)
        known.bytes += size

    async def limited(self, caller: Caller, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks of shared data, up to what the caller may still store; exceeding it raises `TooLargeError`."""
        most = caller.limits.bytes
        if most is None:
            return chunks
        left = most - (await self._use_of(caller.owner)).bytes

        async def until_limit() -> AsyncIterator[bytes]:
            size = 0
            async for chunk in chunks:
                size += len(chunk)
                if size > left:
                    raise TooLargeError(
                        f"the key {caller.key} allows {most:,} bytes of inputs and shared data, of which "
                        f"{max(0, left):,} are left; remove shared data, or wait until jobs have ended"
                    )
                yield chunk

        return until_limit()

    async def _use_of(self, owner: str) -> _Known:
        now = asyncio.get_running_loop().time()
        known = self._known.get(owner)
        if known is None or now - known.at > READ_EVERY_S:
            used = await self._store.usage(owner)
            if len(self._known) >= MOST_OWNERS:
                self._known.clear()
            known = self._known[owner] = _Known(used.unfinished, used.bytes, now)
        return known
