"""The groups as this parent knows them: who leads, how loaded they are, and what they tell.

For each group one poll waits at its leader for changes, which brings the load along, and one call at a time hands
over new jobs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raygrid.batching import Coalescer
from raygrid.config import GridSettings
from raygrid.core.routing import RoutingPolicy, rank
from raygrid.errors import BusyError, RaygridError, UnavailableError
from raygrid.models import GroupCapacity, JobSpec
from raygrid.parent.waiters import Waiters
from raygrid.ports import GroupDirectory, LeaderLink

logger = logging.getLogger(__name__)

POLL_S = 1.0
PAUSE_S = 0.2
REFRESH_S = 1.0
SILENT_S = 4.0


@dataclass(slots=True)
class _Known:
    """A group: its leader, its latest word, and what this parent has sent since."""

    link: LeaderLink
    pokes: Coalescer[JobSpec, None]
    task: asyncio.Task[None] | None = None
    capacity: GroupCapacity | None = None
    heard_at: float = 0.0
    sent: int = 0


class Groups:
    """Keeps up with all groups. The owner opens and closes it.

    Args:
        directory: finds groups and leaders.
        settings: how groups are ranked, how many jobs each may have queued; leaders with older settings are told.
        waiters: woken by what leaders tell.
    """

    def __init__(self, directory: GroupDirectory, settings: GridSettings, waiters: Waiters) -> None:
        self._directory = directory
        self._settings = settings
        routing = settings.routing
        self._policy = RoutingPolicy(routing.policy, routing.site_distance, routing.hash_load_bound)
        self._max_queued = routing.max_queued
        self._waiters = waiters
        self._known: dict[str, _Known] = {}
        self._refreshing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to follow the groups."""
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh_forever(), name="groups")

    async def close(self) -> None:
        """Stop following."""
        tasks = [known.task for known in self._known.values() if known.task is not None]
        if self._refreshing is not None:
            tasks.append(self._refreshing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(known.pokes.close() for known in self._known.values()))

    # --- what the service asks ----------------------------------------------------------------------------------

    def capacities(self, *, silent_too: bool = False) -> list[GroupCapacity]:
        """The load of every group whose leader has been heard lately, with what was sent since.

        With `silent_too`, also of those whose leader has been silent for a while.
        """
        now = time.monotonic()
        return [
            replace(known.capacity, queued=known.capacity.queued + known.sent)
            for known in self._known.values()
            if known.capacity is not None and (silent_too or now - known.heard_at < SILENT_S)
        ]

    def choose(self, affinity: str | None, site: str | None, count: int = 1) -> str:
        """The group for the next `count` jobs.

        Raises:
            UnavailableError: no group has a leader that answers.
            BusyError: every group's queue is full.
        """
        # A silent leader is no reason to refuse a job: the store keeps it, and the next leader finds it.
        candidates = self.capacities() or self.capacities(silent_too=True)
        if not candidates:
            raise UnavailableError("no group can take the job now: no leader answers yet; try again", retry_after_s=2.0)
        room = [group for group in candidates if group.queued + count <= self._max_queued]
        if not room:
            raise BusyError(
                f"every group's queue is full ({self._max_queued} jobs each); try again later",
                retry_after_s=5.0,
            )
        chosen = rank(self._policy, room, affinity=affinity, site=site)[0]
        self._known[chosen.group_id].sent += count
        return chosen.group_id

    def poke(self, group_id: str, jobs: Sequence[JobSpec]) -> None:
        """Tell a leader of new jobs. Nobody waits for it: the store has them, and the leader scans."""
        known = self._known.get(group_id)
        if known is not None:
            known.pokes.put_all(jobs)

    async def cancel(self, group_id: str, job_ids: Sequence[str]) -> None:
        """Tell a leader of jobs to cancel.

        Raises:
            UnavailableError: it did not answer; it will find the wish in the store when it can.
        """
        known = self._known.get(group_id)
        if known is None:
            raise UnavailableError(f"group {group_id} has no leader now")
        await known.link.cancel(job_ids)

    def address_of(self, node_id: str) -> str | None:
        """Where a node's cached results are reached."""
        for known in self._known.values():
            for node in known.capacity.nodes if known.capacity else ():
                if node.node_id == node_id:
                    return node.address
        return None

    # --- loops --------------------------------------------------------------------------------------------------

    async def _refresh_forever(self) -> None:
        while True:
            try:
                await self._refresh()
            except RaygridError as error:
                logger.warning("cannot look for groups: %s", error)
            except Exception:
                logger.exception("looking for groups failed unexpectedly")
            await asyncio.sleep(REFRESH_S)

    async def _refresh(self) -> None:
        found = await self._directory.groups()
        for group_id, link in found.items():
            known = self._known.get(group_id)
            if known is not None and known.link is link:
                continue
            if known is not None and known.task is not None:
                known.task.cancel()
            fresh = self._known[group_id] = _Known(link, Coalescer(self._send_to(link), name=f"pokes of {group_id}"))
            if known is not None:
                fresh.capacity, fresh.heard_at = known.capacity, known.heard_at
            fresh.task = asyncio.get_running_loop().create_task(
                self._follow(group_id, fresh), name=f"follow {group_id}"
            )
        for group_id in self._known.keys() - found.keys():
            gone = self._known.pop(group_id)
            if gone.task is not None:
                gone.task.cancel()

    @staticmethod
    def _send_to(link: LeaderLink):  # type: ignore[no-untyped-def]  # the closure's type is that of Coalescer's send
        async def send(jobs: Sequence[JobSpec]) -> list[None]:
            try:
                await link.enqueue(jobs)
            except RaygridError as error:
                logger.info("a poke of %d jobs was lost (the leader's scan will find them): %s", len(jobs), error)
            return [None] * len(jobs)

        return send

    async def _follow(self, group_id: str, known: _Known) -> None:
        epoch, after = "", 0
        while True:
            try:
                reply = await known.link.changes(epoch, after, POLL_S)
            except RaygridError as error:
                logger.info("the leader of %s did not answer: %s", group_id, error)
                await asyncio.sleep(PAUSE_S)
                continue
            epoch, after = reply.epoch, reply.last
            known.capacity, known.heard_at, known.sent = reply.capacity, time.monotonic(), 0
            if reply.gap:
                self._waiters.wake_all()
            else:
                self._waiters.changed(reply.changes)
            if reply.deployed_at < self._settings.deployed_at:
                await self._tell_settings(group_id, known.link)

    async def _tell_settings(self, group_id: str, link: LeaderLink) -> None:
        """The grid was deployed anew, and this leader does not know it yet. A leader with newer settings is let be."""
        try:
            await link.configure(self._settings.without_keys)
        except RaygridError as error:
            logger.info("the leader of %s could not be told of newer settings: %s", group_id, error)
            await asyncio.sleep(PAUSE_S)
