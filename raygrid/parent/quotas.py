"""Holds callers to the limits of their keys: unfinished jobs, and bytes of inputs and shared data.

What an owner uses is read from the job store at most twice per second. What this parent lets in is added before it is
stored, so that requests at the same moment cannot exceed a limit together. With several parents, an owner can exceed a
limit by what the others let in within that time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from raygrid.core.access import Caller
from raygrid.errors import BusyError, TooLargeError
from raygrid.models import NewJob
from raygrid.store import JobStore

READ_EVERY_S = 0.5
RETRY_AFTER_S = 2.0
MOST_OWNERS = 1_000
FORM_BYTES = 64 * 1024
"""A form may have so many bytes more than its files."""


class Used(NamedTuple):
    """Unfinished jobs, and bytes."""

    jobs: int = 0
    bytes: int = 0

    def plus(self, other: Used) -> Used:
        """The sum."""
        return Used(self.jobs + other.jobs, self.bytes + other.bytes)

    def minus(self, other: Used) -> Used:
        """The difference."""
        return Used(self.jobs - other.jobs, self.bytes - other.bytes)


_NOTHING = Used()


@dataclass(slots=True)
class _Owner:
    """What an owner uses: as read from the store, and what this parent has let in.

    Attributes:
        read: what the store had.
        read_at: when that was read, by the clock of the event loop.
        stored_before: `stored` when the reading began.
        stored: what this parent has let in and stored, since it knows the owner.
        pending: what it has let in and not stored yet.
        reading: held while the store is read.
    """

    read: Used = _NOTHING
    read_at: float = -math.inf
    stored_before: Used = _NOTHING
    stored: Used = _NOTHING
    pending: Used = _NOTHING
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def used(self) -> Used:
        """All that the owner uses; what was stored while the store was read may count twice."""
        return self.read.plus(self.pending).plus(self.stored.minus(self.stored_before))


class Admission:
    """What a request was let in with, which counts until the store shows it. Its owner calls `stored` or `dropped`."""

    __slots__ = ("_caller", "_owner", "_used")

    def __init__(self, caller: Caller, owner: _Owner, used: Used = _NOTHING) -> None:
        self._caller = caller
        self._owner = owner
        self._used = used
        owner.pending = owner.pending.plus(used)

    def stored(self) -> None:
        """Note that the request is stored, or may be."""
        self._owner.stored = self._owner.stored.plus(self._used)
        self.dropped()

    def dropped(self) -> None:
        """Note that nothing of the request was stored."""
        self._owner.pending = self._owner.pending.minus(self._used)
        self._used = _NOTHING

    async def limited(self, chunks: AsyncIterator[bytes], more: int = 0) -> AsyncIterator[bytes]:
        """The chunks of an upload, each counted; it may exceed the limit by `more` bytes.

        Raises:
            TooLargeError: the caller may not store so much.
        """
        most = self._caller.limits.bytes
        async for chunk in chunks:
            if most is not None and self._owner.used.bytes + len(chunk) > most + more:
                left = max(0, most - self._owner.used.bytes + self._used.bytes)
                raise TooLargeError(
                    f"the key {self._caller.key} allows {most:,} bytes of inputs and shared data, of which {left:,} "
                    "are left; remove shared data, or wait until jobs have ended"
                )
            self._used = self._used.plus(Used(0, len(chunk)))
            self._owner.pending = self._owner.pending.plus(Used(0, len(chunk)))
            yield chunk


class Quotas:
    """The limits of keys at one parent."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._owners: dict[str, _Owner] = {}

    async def admit(self, caller: Caller, jobs: Sequence[NewJob]) -> Admission | None:
        """Let in jobs that a caller submits; None if its key has no limits.

        Jobs that exist already count, too, until the next look at the store.

        Raises:
            TooLargeError: no grid that is empty could take these jobs.
            BusyError: the caller uses as much as it may; some of its jobs have to end first.
        """
        limits = caller.limits
        if not limits.need_usage:
            return None
        wanted = Used(len(jobs), sum(job.spec.input.size for job in jobs))
        if limits.queued_jobs is not None and wanted.jobs > limits.queued_jobs:
            raise TooLargeError(
                f"{wanted.jobs} jobs in one request are more than the {limits.queued_jobs} unfinished jobs that the "
                f"key {caller.key} may have; send fewer at once"
            )
        if limits.bytes is not None and wanted.bytes > limits.bytes:
            raise TooLargeError(
                f"the inputs have {wanted.bytes:,} bytes; the key {caller.key} may have {limits.bytes:,}"
            )
        owner = await self._owner(caller)
        _require_room(caller, owner.used, wanted)
        return Admission(caller, owner, wanted)

    async def admit_upload(self, caller: Caller, size: int | None = None) -> Admission | None:
        """Let in an upload, whose bytes are counted as they come; None if its key has no limits.

        `size` is the announced size of a form with jobs, which is refused before it is read.

        Raises:
            TooLargeError: the form alone exceeds the limit.
            BusyError: the caller uses as much as it may.
        """
        limits = caller.limits
        if not limits.need_usage:
            return None
        owner = await self._owner(caller)
        if size is not None:
            least = max(0, size - FORM_BYTES)
            if limits.bytes is not None and least > limits.bytes:
                raise TooLargeError(f"the request has {size:,} bytes; the key {caller.key} may have {limits.bytes:,}")
            _require_room(caller, owner.used, Used(1, least))
        return Admission(caller, owner)

    async def _owner(self, caller: Caller) -> _Owner:
        """The caller's owner, with what it uses as of less than `READ_EVERY_S` ago."""
        clock = asyncio.get_running_loop().time
        owner = self._owners.get(caller.owner)
        if owner is None:
            if len(self._owners) >= MOST_OWNERS:
                self._owners = {name: each for name, each in self._owners.items() if each.pending != _NOTHING}
            owner = self._owners[caller.owner] = _Owner()
        if clock() - owner.read_at > READ_EVERY_S:
            async with owner.reading:
                if clock() - owner.read_at > READ_EVERY_S:
                    began, stored = clock(), owner.stored
                    found = await self._store.usage(caller.owner)
                    owner.read, owner.read_at = Used(found.unfinished, found.bytes), began
                    owner.stored_before = stored
        return owner


def _require_room(caller: Caller, used: Used, wanted: Used) -> None:
    limits = caller.limits
    if limits.queued_jobs is not None and used.jobs + wanted.jobs > limits.queued_jobs:
        raise BusyError(
            f"{caller.owner} has {used.jobs} unfinished jobs, and the key {caller.key} allows {limits.queued_jobs}; "
            "try again when some have ended",
            retry_after_s=RETRY_AFTER_S,
        )
    if limits.bytes is not None and used.bytes + wanted.bytes > limits.bytes:
        raise BusyError(
            f"the unfinished jobs and shared data of {caller.owner} have {used.bytes:,} bytes, and the key "
            f"{caller.key} allows {limits.bytes:,}; try again when some jobs have ended, or remove shared data",
            retry_after_s=RETRY_AFTER_S,
        )
