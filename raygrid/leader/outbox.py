"""A leader's writes to the job store: at most one transaction in flight; changes that arrive meanwhile share the next.

A later change of a job replaces an earlier one that still waits, so that a short job costs one write instead of two.
For the same reason, the start of a job is not written at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from raygrid.core.lease import Lease
from raygrid.errors import StaleTermError
from raygrid.models import JobState, JobUpdate
from raygrid.store import JobStore
from raygrid.system.failure_log import log_failure

logger = logging.getLogger(__name__)

RETRY_S = 0.5
PATIENCE_S = 0.03  # delay before the start of a job is written; many jobs have ended by then


class Outbox:
    """Writes updates under a term; a failed write is tried again until it succeeds or the term is over.

    Args:
        store: the job store.
        lease: the lease whose term every write carries.
        on_written: called with updates once they are committed, and with whether the store surely applied all of
            them: it ignores updates of jobs that have ended or belong to another group.
        on_stale: called when the store refuses a write because the term is over.
    """

    def __init__(
        self,
        store: JobStore,
        lease: Lease,
        on_written: Callable[[Sequence[JobUpdate], bool], None],
        on_stale: Callable[[], None],
    ) -> None:
        self._store = store
        self._lease = lease
        self._on_written = on_written
        self._on_stale = on_stale
        self._updates: dict[str, JobUpdate] = {}
        self._after: list[Callable[[], None]] = []
        self._in_flight: dict[str, JobUpdate] = {}
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()

    def __contains__(self, job_id: object) -> bool:
        """Whether a job has a change that is not committed yet."""
        return job_id in self._updates or job_id in self._in_flight

    def __len__(self) -> int:
        """Upper bound of the number of jobs with a change that is not committed yet."""
        return len(self._updates) + len(self._in_flight)

    def put(self, updates: Sequence[JobUpdate]) -> None:
        """Write updates soon."""
        for update in updates:
            self._updates[update.job_id] = update
            if update.state is not JobState.RUNNING:
                self._urgent.set()
        self._wake.set()

    def afterwards(self, action: Callable[[], None]) -> None:
        """Call a function once all updates put so far are committed."""
        self._after.append(action)
        self._urgent.set()
        self._wake.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    await self._urgent.wait()
            self._wake.clear()
            self._urgent.clear()
            self._in_flight, self._updates = self._updates, {}
            actions, self._after = self._after, []
            whole = await self._write(tuple(self._in_flight.values()))
            if whole is None:
                return
            written, self._in_flight = self._in_flight, {}
            try:
                self._on_written(tuple(written.values()), whole)
                for action in actions:
                    action()
            except Exception:
                logger.exception(
                    "group %s: an action after a write failed; the leader steps down", self._lease.group_id
                )
                self._on_stale()
                return

    async def _write(self, updates: Sequence[JobUpdate]) -> bool | None:
        """Write until it succeeds; return whether the store surely applied all updates, None if the term is over."""
        while updates:
            try:
                return await self._store.record(self._lease.group_id, self._lease.term, updates)
            except StaleTermError:
                self._on_stale()
                return None
            except Exception as error:
                log_failure(
                    logger, error, "group %s: cannot write to the job store; trying again", self._lease.group_id
                )
                await asyncio.sleep(RETRY_S)
        return True
