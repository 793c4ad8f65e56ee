"""Whether this candidate leads: takes the group's lease when it can, leads while it renews it, doubts itself otherwise.

The lease is a row in the job store and lives by the store's clock. A candidate whose renewal fails, or whose outcome it
does not know, stops leading before the lease can run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from raygrid.core.lease import Lease
from raygrid.errors import UnavailableError
from raygrid.leader.dispatch import Leader
from raygrid.store import JobStore

logger = logging.getLogger(__name__)

TTL_S = 3.0
RENEW_S = 1.0


class Candidate:
    """One of the candidates of a group. `run` ends when cancelled.

    Args:
        group_id: the group.
        holder: this candidate's name, unique in every life.
        store: the job store.
        lead: opens a leader for a lease; gets a function to call when it finds its term to be over.
    """

    def __init__(
        self,
        group_id: str,
        holder: str,
        store: JobStore,
        lead: Callable[[Lease, Callable[[], None]], Awaitable[Leader]],
    ) -> None:
        self._group_id = group_id
        self._holder = holder
        self._store = store
        self._lead = lead
        self._leader: Leader | None = None

    @property
    def leader(self) -> Leader:
        """The leader, while this candidate leads.

        Raises:
            UnavailableError: it does not.
        """
        if self._leader is None:
            raise UnavailableError(f"group {self._group_id}: {self._holder} does not lead now; try again")
        return self._leader

    async def run(self) -> None:
        """Take the lease whenever it is free, and lead as long as it can be renewed."""
        while True:
            asked_at = asyncio.get_running_loop().time()
            lease = await self._ask()
            if lease is None:
                await asyncio.sleep(RENEW_S / 2)
                continue
            try:
                await self._lead_until_lost(lease, asked_at)
            except UnavailableError as error:
                logger.warning("group %s: %s could not lead: %s", self._group_id, self._holder, error)
                await asyncio.sleep(RENEW_S)
            except Exception:
                # The store may have gone between the lease and the first scan; the lease is given back by now.
                logger.exception("group %s: %s could not lead", self._group_id, self._holder)
                await asyncio.sleep(RENEW_S)

    async def _ask(self) -> Lease | None:
        try:
            return await asyncio.wait_for(self._store.acquire_lease(self._group_id, self._holder, TTL_S), TTL_S)
        except (UnavailableError, TimeoutError) as error:
            # Whether it was renewed is unknown, so it counts as not.
            logger.warning("group %s: cannot ask for the lease: %s", self._group_id, str(error) or "no answer in time")
            return None
        except Exception:
            logger.exception("group %s: cannot ask for the lease", self._group_id)
            return None

    async def _lead_until_lost(self, lease: Lease, asked_at: float) -> None:
        over = asyncio.Event()
        logger.warning("group %s: %s leads in term %d", self._group_id, self._holder, lease.term)
        leader: Leader | None = None
        try:
            leader = self._leader = await self._lead(lease, over.set)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), RENEW_S)
                now = asyncio.get_running_loop().time()
                renewed = None if over.is_set() else await self._ask()
                if renewed is not None and renewed.term == lease.term:
                    asked_at = now
                elif renewed is not None or asyncio.get_running_loop().time() - asked_at > TTL_S - RENEW_S:
                    break  # another term, or too long without a sure renewal
        finally:
            self._leader = None
            if leader is not None:
                await leader.close()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(asyncio.shield(self._store.release_lease(lease)), RENEW_S)
            logger.warning("group %s: %s steps down from term %d", self._group_id, self._holder, lease.term)
