"""Election: a candidate takes the group's lease when it is free, and leads while it can renew it.

The lease is a row in the job store and expires by the store's clock. A leader whose renewal fails, or has an unknown
outcome, stops leading before the lease can expire. While another candidate leads, a candidate only reads the lease; it
asks for the lease when it has expired.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from raygrid.core.lease import Lease
from raygrid.errors import NotLeadingError, UnavailableError
from raygrid.leader.dispatch import Leader
from raygrid.store import JobStore
from raygrid.system.failure_log import log_failure

logger = logging.getLogger(__name__)

TTL_S = 3.0
RENEW_S = 1.0
SURE_S = TTL_S - RENEW_S  # a leader continues for this long after the start of the last successful renewal
LOOK_S = 0.5  # a candidate reads the lease this often, and when it is about to expire
SLACK_S = 0.02  # added to the end of a lease, because a candidate that reads too early waits for another `LOOK_S`
REST_S = 2.0  # after a hand-over, another candidate has this long to take the lease
SETTLE_S = 1.0
AGAIN_S = 0.2  # between two tries to renew


def _now() -> float:
    return asyncio.get_running_loop().time()


class Candidate:
    """One of the candidates of a group. `run` ends when cancelled.

    Args:
        group_id: the group.
        holder: this candidate's name, unique for each start of its process.
        store: the job store.
        lead: opens a leader for a lease; it also gets a function to call when the term is over.
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
        self._leads = asyncio.Event()
        self._idle = asyncio.Event()  # set while the candidate neither leads nor starts to lead
        self._idle.set()
        self._stand = asyncio.Event()
        self._over = asyncio.Event()
        self._rests_until = 0.0
        self._lives = 0

    @property
    def leads(self) -> bool:
        """Whether this candidate leads now."""
        return self._leader is not None

    @property
    def leader(self) -> Leader:
        """The leader, while this candidate leads.

        Raises:
            NotLeadingError: this candidate does not lead.
        """
        if self._leader is None:
            raise NotLeadingError(f"group {self._group_id}: {self._holder} does not lead now; try again")
        return self._leader

    async def leading(self, wait_s: float) -> Leader:
        """Wait until this candidate leads, and return the leader.

        Raises:
            NotLeadingError: this candidate does not lead within `wait_s`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._leads.wait()
        return self.leader

    def stand(self) -> None:
        """Ask for the lease at once, because another candidate has given it back."""
        self._rests_until = 0.0
        self._stand.set()

    async def hand_over(self) -> None:
        """Write all decisions, step down, give the lease back, and let other candidates take it first.

        Raises:
            NotLeadingError: this candidate does not lead.
        """
        await self.leader.settle(SETTLE_S)
        self._rests_until = _now() + REST_S
        self._over.set()
        await self._idle.wait()

    async def run(self) -> None:
        """Take the lease whenever it is free, and lead as long as it can be renewed."""
        while True:
            await self._until_free()
            # Each try has its own name: a lease whose renewal or return failed is never taken again under its old
            # term, because a write of the earlier leader may still be pending.
            self._lives += 1
            asked_at = _now()
            try:
                lease = await self._ask(f"{self._holder}.{self._lives}", TTL_S)
                if lease is not None:
                    await self._lead_until_lost(lease, asked_at)
            except UnavailableError as error:
                logger.warning("group %s: %s cannot lead: %s", self._group_id, self._holder, error)
                await asyncio.sleep(LOOK_S)
            except Exception:
                # The store may have become unavailable after the lease was taken; the lease has been given back.
                logger.exception("group %s: %s cannot lead", self._group_id, self._holder)
                await asyncio.sleep(RENEW_S)

    async def _until_free(self) -> None:
        """Wait until the lease is free: it has expired, was given back, or was never taken."""
        wait_s = max(0.0, self._rests_until - _now())
        while True:
            if wait_s > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await self._stand.wait()
            self._stand.clear()
            wait_s = LOOK_S
            try:
                async with asyncio.timeout(TTL_S):
                    found = (await self._store.leases()).get(self._group_id)
            except TimeoutError:
                logger.warning("group %s: no answer about the lease within %g s; trying again", self._group_id, TTL_S)
            except Exception as error:
                log_failure(logger, error, "group %s: cannot read the lease; trying again", self._group_id)
            else:
                if found is None or found.left_s <= 0:
                    return
                wait_s = min(LOOK_S, found.left_s + SLACK_S)

    async def _ask(self, holder: str, timeout_s: float) -> Lease | None:
        """Take or renew the lease; None if another candidate has it.

        Raises:
            UnavailableError: it is unknown whether the lease was taken or renewed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._store.acquire_lease(self._group_id, holder, TTL_S)
        except TimeoutError:
            raise UnavailableError(f"no answer about the lease within {timeout_s:.1f} s") from None

    async def _lead_until_lost(self, lease: Lease, asked_at: float) -> None:
        over = self._over
        over.clear()
        self._idle.clear()
        logger.warning("group %s: %s leads in term %d", self._group_id, lease.holder, lease.term)
        # Opening a leader may take longer than the TTL of the lease.
        renewing = asyncio.get_running_loop().create_task(self._renew(lease, asked_at), name=f"lease {self._group_id}")
        leader: Leader | None = None
        try:
            leader = await self._lead(lease, over.set)
            if not over.is_set():
                self._leader = leader
                self._leads.set()
            await over.wait()
        finally:
            self._leads.clear()
            self._leader = None
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            if leader is not None:
                await leader.close()
            with contextlib.suppress(Exception):
                async with asyncio.timeout(RENEW_S):
                    await asyncio.shield(self._store.release_lease(lease))
            self._idle.set()
            logger.warning("group %s: %s steps down from term %d", self._group_id, lease.holder, lease.term)

    async def _renew(self, lease: Lease, asked_at: float) -> None:
        """Renew the lease until a renewal fails or its outcome is unknown; then end the leader."""
        try:
            while not self._over.is_set():
                await asyncio.sleep(max(0.0, asked_at + RENEW_S - _now()))
                now = _now()
                try:
                    renewed = await self._ask(lease.holder, max(0.0, asked_at + SURE_S - now))
                except UnavailableError as error:
                    logger.warning("group %s: the leader cannot renew its lease: %s", self._group_id, error)
                    if _now() >= asked_at + SURE_S:
                        return
                    await asyncio.sleep(min(AGAIN_S, max(0.0, asked_at + SURE_S - _now())))
                    continue
                if renewed is None or renewed.term != lease.term:
                    return
                asked_at = now
        except Exception:
            logger.exception(
                "group %s: the leader cannot renew its lease because of an unexpected error", self._group_id
            )
        finally:
            self._over.set()
