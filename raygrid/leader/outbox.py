"""A leader's writes to the job store: at most one transaction in flight, whatever gathers meanwhile in the next.

A job's later change replaces its earlier one that is still waiting: a fast job costs one write, not two. So that a job
runs is no reason to write at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from raygrid.core.lease import Lease
from raygrid.errors import StaleTermError, UnavailableError
from raygrid.models import JobState, JobUpdate
from raygrid.store import JobStore

logger = logging.getLogger(__name__)

RETRY_S = 0.5
PATIENCE_S = 0.03  # how long it may go unwritten that a job runs: many have ended by then


class Outbox:
    """Writes updates under a term; what the store does not take is tried again until it does, or the term is over.

    Args:
        store: the job store.
        lease: whose term every write carries.
        written: called with updates once they are committed, and with whether the store surely has them all: it lets
            jobs be that have ended or are another group's by now.
        stale: called when the store refuses a write because the term is over.
    """

    def __init__(
        self,
        store: JobStore,
        lease: Lease,
        written: Callable[[Sequence[JobUpdate], bool], None],
        stale: Callable[[], None],
    ) -> None:
        self._store = store
        self._lease = lease
        self._written = written
        self._stale = stale
        self._updates: dict[str, JobUpdate] = {}
        self._after: list[Callable[[], None]] = []
        self._in_flight: dict[str, JobUpdate] = {}
        self._wake = asyncio.Event()
        self._urgent = asyncio.Event()

    def __contains__(self, job_id: object) -> bool:
        """Whether a change of this job is not committed yet."""
        return job_id in self._updates or job_id in self._in_flight

    def __len__(self) -> int:
        """How many jobs have a change that is not committed yet, at most."""
        return len(self._updates) + len(self._in_flight)

    def put(self, updates: Sequence[JobUpdate]) -> None:
        """Write these soon."""
        for update in updates:
            self._updates[update.job_id] = update
            if update.state is not JobState.RUNNING:
                self._urgent.set()
        self._wake.set()

    def afterwards(self, action: Callable[[], None]) -> None:
        """Do something once everything put so far is committed."""
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
                self._written(tuple(written.values()), whole)
                for action in actions:
                    action()
            except Exception:
                logger.exception("group %s: what follows a write broke; the leader steps down", self._lease.group_id)
                self._stale()
                return

    async def _write(self, updates: Sequence[JobUpdate]) -> bool | None:
        """Write until it succeeds; whether the store surely has all of it, and None if the term is over."""
        while updates:
            try:
                return await self._store.record(self._lease.group_id, self._lease.term, updates)
            except StaleTermError:
                self._stale()
                return None
            except UnavailableError as error:
                # What was decided must reach the store when it is back, or the next leader finds it anew.
                logger.warning("group %s: a write has to wait: %s", self._lease.group_id, error)
                await asyncio.sleep(RETRY_S)
            except Exception:
                logger.exception("group %s: the job store did not take a write; trying again", self._lease.group_id)
                await asyncio.sleep(RETRY_S)
        return True
