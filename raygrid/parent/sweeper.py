"""Moves jobs of lost groups to other groups, because a lost group has no leader that could do it.

Every parent watches the groups' leases; the parent that holds the lease `SWEEPER` moves the jobs. One is enough, but
two do no harm: the job store moves a job only from the group that has it, and running jobs only from groups without a
leader.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar
from uuid import uuid4

from raygrid.core.lease import HandOver
from raygrid.core.routing.lost_groups import LostGroups, LostGroupTimeouts
from raygrid.errors import RaygridError, UnavailableError
from raygrid.models import JobState, QueuedJob
from raygrid.parent.groups import Groups
from raygrid.parent.waiters import Waiters
from raygrid.store import JobStore, LeaseState, Unfinished
from raygrid.system.failure_log import log_failure
from raygrid.transport.ports import JobChange

logger = logging.getLogger(__name__)
Value = TypeVar("Value")

SWEEPER = "~sweeper"  # not the name of a group, because those begin with `group_prefix`
TTL_S = 3.0
RENEW_BELOW_S = 2.0
LOOK_S = 0.5
CALL_S = 2.5  # a look at the leases that takes longer has failed
PAGE = 2_000  # jobs moved in one transaction
REST_S = 2.0  # between sweeps of a group that had nothing to move
MOST_NOTED = 100_000


class Sweeper:
    """Watches for lost groups and moves their jobs. The owner opens and closes it.

    Attributes:
        lost: the lost groups, and when their last lease expired, by the store's clock.
        hand_overs: the last hand-over of each group that was requested and carried out, if any was.
        holder: the name of this sweeper in the lease, unique for each start.
    """

    def __init__(self, store: JobStore, groups: Groups, waiters: Waiters, patience: LostGroupTimeouts) -> None:
        self._store = store
        self._groups = groups
        self._waiters = waiters
        self._watch = LostGroups(patience)
        self.holder = f"parent/{uuid4().hex[:8]}"
        self.lost: Mapping[str, datetime] = {}
        self.hand_overs: Mapping[str, HandOver] = {}
        self._idle: Sequence[str] = ()
        self._sweeps = False
        self._rest_until: dict[str, float] = {}
        self._looked = asyncio.Event()
        self._requested = asyncio.Event()
        self._refused: dict[str, set[str]] = {}
        self._to_cancel: dict[str, set[str]] = {}
        self._moved: dict[str, set[str]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Start to watch."""
        self._groups.polls.on_refusal = partial(self._note, self._refused)
        loop = asyncio.get_running_loop()
        loops = {"watch": self._watch_forever(), "sweep": self._sweep_forever(), "requests": self._serve_forever()}
        self._tasks = [loop.create_task(each, name=f"sweeper: {name}") for name, each in loops.items()]

    def note_hand_over(self, group_id: str, done: HandOver) -> None:
        """Show a hand-over that was just recorded, before the next look at the leases."""
        self.hand_overs = {**self.hand_overs, group_id: done}

    async def close(self) -> None:
        """Stop, and release the lease, so that another parent can sweep at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if not self._sweeps:
            return
        with contextlib.suppress(UnavailableError):
            state = (await _in_time(self._store.leases())).get(SWEEPER)
            if state is not None and state.lease.holder == self.holder:
                await _in_time(self._store.release_lease(state.lease))

    # --- requests of the parent ---------------------------------------------------------------------------------------

    def cancel(self, group_id: str, job_ids: Sequence[str]) -> None:
        """Cancel jobs whose leader could not be reached; the request is in the store already."""
        self._note(self._to_cancel, group_id, job_ids)

    def _note(self, noted: dict[str, set[str]], group_id: str, job_ids: Sequence[str]) -> None:
        if sum(map(len, noted.values())) + len(job_ids) > MOST_NOTED:
            count = len(job_ids)
            logger.warning("group %s: too many requests wait here; leaving %d jobs to its leader", group_id, count)
            return
        noted.setdefault(group_id, set()).update(job_ids)
        self._requested.set()

    # --- watching -----------------------------------------------------------------------------------------------------

    async def _watch_forever(self) -> None:
        while True:
            try:
                await self._look()
            except Exception as error:
                self._watch.failed(asyncio.get_running_loop().time())
                log_failure(logger, error, "the leases of the groups cannot be read; trying again")
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        states = await _in_time(self._store.leases())
        self._sweeps = await self._hold_lease(states.pop(SWEEPER, None))
        now = asyncio.get_running_loop().time()
        self._watch.observe(
            {group_id: state.left_s for group_id, state in states.items()}, self._groups.capacities(), now
        )
        lost = {group_id: states[group_id].lease.expires_at for group_id in self._watch.lost(now)}
        for group_id in lost.keys() - self.lost.keys():
            logger.warning("group %s has had no leader since %s; other groups take its jobs", group_id, lost[group_id])
        for group_id in self.lost.keys() - lost.keys():
            logger.warning("group %s is no longer lost; it takes jobs again", group_id)
        self.hand_overs = {group_id: state.hand_over for group_id, state in states.items() if state.hand_over}
        self.lost, self._idle = lost, self._watch.idle(now)
        self._groups.known.lost = frozenset(lost)
        self._looked.set()

    async def _hold_lease(self, state: LeaseState | None) -> bool:
        """Take the sweeper's lease if it is free, or renew it; returns whether this parent holds it.

        Called before a look is evaluated: if writes fail here, leaders could not renew their leases either.
        """
        if state is not None and state.left_s > 0:
            if state.lease.holder != self.holder:
                return False
            if state.left_s > RENEW_BELOW_S:
                return True
        return await _in_time(self._store.acquire_lease(SWEEPER, self.holder, TTL_S)) is not None

    # --- sweeping -----------------------------------------------------------------------------------------------------

    async def _sweep_forever(self) -> None:
        while True:
            await self._looked.wait()
            self._looked.clear()
            for group_id, unled in [*((each, True) for each in self.lost), *((each, False) for each in self._idle)]:
                try:
                    await self._sweep(group_id, unled=unled)
                except Exception as error:
                    log_failure(logger, error, "group %s: its jobs cannot be moved; trying again", group_id)

    async def _sweep(self, group_id: str, *, unled: bool) -> None:
        """Move a group's jobs to groups that can take them, until another parent sweeps or the group is back."""
        while self._sweeps and group_id in (self.lost if unled else self._idle):
            now = asyncio.get_running_loop().time()
            if now < self._rest_until.get(group_id, 0.0):
                return
            if unled:
                await self._cancel_all(group_id)
            page = await self._store.unfinished(group_id, PAGE, running=unled)
            if not page or not await self._move(group_id, page, unled=unled):
                self._rest_until[group_id] = now + REST_S

    async def _cancel_all(self, group_id: str) -> None:
        while await self._store.unfinished(group_id, 1, to_cancel=True):
            ended = await self._store.cancel_unled(group_id, running=True)
            if not ended:
                return
            self._wake(ended)

    async def _move(self, group_id: str, jobs: Sequence[Unfinished], *, unled: bool) -> int:
        """Move jobs to the groups that can take them, by the routing policy; returns how many."""
        chosen_groups = self._groups.routing.choose_many(jobs, instead_of=group_id)
        to = {jobs[index].job_id: chosen for index, chosen in chosen_groups}
        moved: dict[str, list[QueuedJob]] = {}
        try:
            if to:
                moved = await self._store.move(group_id, to, unled=unled)
        finally:
            for chosen, promised in Counter(to.values()).items():
                self._groups.routing.release(chosen, promised - len(moved.get(chosen, ())))
        count = 0
        for chosen, queued in moved.items():
            self._groups.announce(chosen, queued)
            self._waiters.changed([JobChange(job.spec.job_id, JobState.QUEUED) for job in queued])
            count += len(queued)
        if count:
            logger.warning("group %s: %d jobs moved to %s", group_id, count, ", ".join(sorted(moved)))
        if count and not unled:
            self._note(self._moved, group_id, [job.spec.job_id for queued in moved.values() for job in queued])
        return count

    # --- serving requests ---------------------------------------------------------------------------------------------

    async def _serve_forever(self) -> None:
        """Move refused jobs, cancel jobs and announce moves, whether this parent holds the lease or not."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if self._to_cancel else None):
                    await self._requested.wait()
            self._requested.clear()
            try:
                await self._move_refused()
                await asyncio.gather(*(self._cancel(group_id) for group_id in list(self._to_cancel)))
                await asyncio.gather(*(self._announce_moved(group_id) for group_id in list(self._moved)))
            except Exception as error:
                log_failure(logger, error, "jobs cannot be moved or cancelled; trying again")
                await asyncio.sleep(LOOK_S)

    async def _move_refused(self) -> None:
        """Move jobs that their leader refused; they stay if no other group can take them."""
        while self._refused:
            group_id, job_ids = self._refused.popitem()
            found = (await self._store.get(sorted(job_ids))).values()
            queued = [job for job in found if job.state is JobState.QUEUED and job.group_id == group_id]
            jobs = [Unfinished(job.job_id, job.affinity, job.site) for job in queued]
            for start in range(0, len(jobs), PAGE):
                if not await self._move(group_id, jobs[start : start + PAGE], unled=False):
                    break

    async def _cancel(self, group_id: str) -> None:
        """Cancel jobs of a leader that could not be reached: in the store if there is no leader, else through it.

        Running jobs are cancelled by the next leader, which finds the request in the store, or once the group is lost.
        """
        job_ids = self._to_cancel.pop(group_id)
        try:
            ended = await self._store.cancel_unled(group_id, sorted(job_ids), running=group_id in self.lost)
            if ended is None:
                await self._groups.cancel(group_id, sorted(job_ids))
            else:
                self._wake(ended)
        except RaygridError:
            self._to_cancel.setdefault(group_id, set()).update(job_ids)  # tried again; its lease may expire

    async def _announce_moved(self, group_id: str) -> None:
        await self._groups.forget(group_id, sorted(self._moved.pop(group_id)))

    def _wake(self, job_ids: Sequence[str]) -> None:
        """Wake the waiters for jobs that were cancelled."""
        self._waiters.changed([JobChange(job_id, JobState.CANCELLED) for job_id in job_ids])


async def _in_time(call: Awaitable[Value]) -> Value:
    """The answer of the job store.

    Raises:
        UnavailableError: it did not answer within `CALL_S`.
    """
    try:
        async with asyncio.timeout(CALL_S):
            return await call
    except TimeoutError:
        raise UnavailableError(f"the job store did not answer within {CALL_S:g} s") from None
