"""Whether this candidate leads: it takes the group's lease when it can, and leads while it renews it.

The lease is a row in the job store and lives by the store's clock. A candidate whose renewal fails, or whose outcome it
does not know, stops leading before the lease can run out. While another leads, a candidate only looks at the lease, and
asks for it when it has run out.
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

logger = logging.getLogger(__name__)

TTL_S = 3.0
RENEW_S = 1.0
SURE_S = TTL_S - RENEW_S  # a leader continues for so long after it asked for the last renewal that succeeded
LOOK_S = 0.5  # a candidate looks at the lease this often, and when it is about to run out
SLACK_S = 0.02  # after the end of a lease: a candidate that asks too early waits for another look
REST_S = 2.0  # after a hand-over, another candidate has this long to take the lease
SETTLE_S = 1.0
AGAIN_S = 0.2  # between two tries to renew, as long as there is time


def _now() -> float:
    return asyncio.get_running_loop().time()


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
        self._leads = asyncio.Event()
        self._idle = asyncio.Event()  # neither leads nor is about to
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
            NotLeadingError: it does not.
        """
        if self._leader is None:
            raise NotLeadingError(f"group {self._group_id}: {self._holder} does not lead now; try again")
        return self._leader

    async def leading(self, wait_s: float) -> Leader:
        """The leader, once this candidate leads.

        Raises:
            NotLeadingError: it did not come to lead within `wait_s`.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._leads.wait()
        return self.leader

    def stand(self) -> None:
        """Try for the lease at once: another has given it up."""
        self._rests_until = 0.0
        self._stand.set()

    async def hand_over(self) -> None:
        """Write what is decided, step down, give the lease back, and let others take it first.

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
            # A name for each life: a lease whose renewal or return failed is never taken up again under its old term,
            # as a write of the earlier life may still be pending.
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
                # The store may have gone between the lease and the first scan; the lease is given back by now.
                logger.exception("group %s: %s cannot lead", self._group_id, self._holder)
                await asyncio.sleep(RENEW_S)

    async def _until_free(self) -> None:
        """Wait until the lease looks free: it has run out, was given back, or was never taken."""
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
            except (UnavailableError, TimeoutError) as error:
                logger.warning(
                    "group %s: cannot read the lease; trying again: %s", self._group_id, str(error) or "no answer"
                )
            except Exception:
                logger.exception(
                    "group %s: cannot read the lease because of an unexpected error; trying again", self._group_id
                )
            else:
                if found is None or found.left_s <= 0:
                    return
                wait_s = min(LOOK_S, found.left_s + SLACK_S)

    async def _ask(self, holder: str, timeout_s: float) -> Lease | None:
        """Take or renew the lease; None where another has it.

        Raises:
            UnavailableError: it is not known whether it was taken or renewed.
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
        # Opening a leader may take longer than the lease lives.
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
