"""Follows the groups: finds their candidates, polls each for changes of jobs, and sends newer settings to leaders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from raygrid.core.lease import Lease
from raygrid.errors import GroupRefusedError, NotLeadingError, ProcessEndedError, RaygridError
from raygrid.models import QueuedJob
from raygrid.parent.known_groups import KnownGroup, KnownGroups, now
from raygrid.parent.waiters import Waiters
from raygrid.settings.model import GridSettings
from raygrid.system.failure_log import log_failure
from raygrid.transport.batching import Coalescer
from raygrid.transport.ports import GroupDiscovery, LeaderCalls

logger = logging.getLogger(__name__)

POLL_S = 1.0
PAUSE_S = 0.2
STANDBY_PAUSE_S = 0.02  # short, because a standby candidate waits to become the leader before it answers
REFRESH_S = 1.0


async def _keep(lease: Lease) -> None:
    """Do nothing: the lease expires."""


class LeaderPolls:
    """Keeps `KnownGroups` up to date. The owner opens and closes it.

    Attributes:
        on_refusal: called with the group and the ids of jobs that it refused.
        give_back: releases the lease of a leader whose process has ended.
    """

    def __init__(self, known: KnownGroups, discovery: GroupDiscovery, settings: GridSettings, waiters: Waiters) -> None:
        self._known = known
        self._discovery = discovery
        self._settings = settings
        self._waiters = waiters
        self.on_refusal: Callable[[str, Sequence[str]], None] = lambda group_id, job_ids: None
        self.give_back: Callable[[Lease], Awaitable[None]] = _keep
        self._refreshing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Start to follow the groups."""
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh_forever(), name="groups")

    async def close(self) -> None:
        """Stop following."""
        tasks = [task for known in self._known for task in known.followers.values()]
        if self._refreshing is not None:
            tasks.append(self._refreshing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(known.notices.close() for known in self._known))

    async def _refresh_forever(self) -> None:
        while True:
            try:
                await self.refresh()
            except Exception as error:
                log_failure(logger, error, "the groups cannot be listed; trying again")
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Find the groups and their candidates, and follow new ones.

        Raises:
            UnavailableError: they cannot be listed now.
        """
        by_id = self._known.by_id
        found = await self._discovery.groups()
        for group_id, candidates in found.items():
            known = by_id.get(group_id)
            if known is None:
                notices = Coalescer(partial(self._announce, group_id), name=f"notices to {group_id}")
                known = by_id[group_id] = KnownGroup(notices)
            for candidate in candidates:
                if candidate not in known.followers:
                    known.followers[candidate] = asyncio.get_running_loop().create_task(
                        self._follow(group_id, known, candidate), name=f"follow {group_id}"
                    )
            for candidate in [each for each in known.followers if each not in candidates]:
                known.followers.pop(candidate).cancel()
                if known.leader is candidate:
                    known.leader = None
        for group_id in by_id.keys() - found.keys():
            self._known.changed.add(group_id)
            for task in by_id.pop(group_id).followers.values():
                task.cancel()

    async def _announce(self, group_id: str, jobs: Sequence[QueuedJob]) -> Sequence[None]:
        known, count = self._known.get(group_id), len(jobs)
        try:
            if known is not None and known.leader is not None:
                await known.leader.enqueue(jobs)
        except GroupRefusedError as error:
            logger.info("group %s refused %d jobs; moving them: %s", group_id, count, error)
            self._known.note_refusal(group_id)
            self.on_refusal(group_id, [job.spec.job_id for job in jobs])
        except RaygridError as error:
            logger.info("group %s missed a notice of %d jobs; its next scan finds them: %s", group_id, count, error)
        if known is not None:
            known.promised = max(0, known.promised - count)
            known.announced += count
            self._known.changed.add(group_id)
        return [None] * count

    async def _follow(self, group_id: str, known: KnownGroup, candidate: LeaderCalls) -> None:
        """Poll one candidate for changes of jobs; only the leader gives an answer."""
        epoch, after = "", 0
        while True:
            try:
                reply = await candidate.changes(epoch, after, POLL_S)
            except NotLeadingError:
                await asyncio.sleep(STANDBY_PAUSE_S)
                continue
            except RaygridError as error:
                logger.info("group %s: a candidate did not answer a poll; polling again: %s", group_id, error)
                if isinstance(error, ProcessEndedError) and known.leader is candidate:
                    await self._replace_leader(group_id, known)
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception:
                logger.exception("group %s: polling a candidate failed unexpectedly; trying again", group_id)
                await asyncio.sleep(PAUSE_S)
                continue
            epoch, after = reply.epoch, reply.last
            if reply.term < known.term:
                # A former leader that has not noticed the end of its term: it was frozen, or its network was cut.
                await asyncio.sleep(PAUSE_S)
                continue
            known.leader, known.term, known.holder = candidate, reply.term, reply.leader
            known.capacity, known.answered_at, known.announced = reply.capacity, now(), 0
            self._known.changed.add(group_id)
            known.changed.set()
            if reply.gap:
                self._waiters.wake_all()
            else:
                self._waiters.changed(reply.changes)
            if reply.deployed_at < self._settings.deployed_at:
                await self._send_settings(group_id, candidate)

    async def _replace_leader(self, group_id: str, known: KnownGroup) -> None:
        """Let another candidate take over from a leader whose process has ended, before the lease expires.

        If the process is alive after all, the next term ends its own.
        """
        dead, known.leader = known.leader, None
        others = known.others_than(dead)
        if not others:
            return  # only the same candidate can lead again
        try:
            await self.give_back(Lease(group_id, known.holder, known.term, datetime.now(UTC)))
            await asyncio.gather(*(other.stand() for other in others), return_exceptions=True)
        except RaygridError as error:
            logger.info("group %s: the lease of its dead leader was not released and must expire: %s", group_id, error)

    async def _send_settings(self, group_id: str, leader: LeaderCalls) -> None:
        """Send the settings to a leader that has older ones; a leader with newer settings keeps them."""
        try:
            await leader.configure(self._settings.without_keys)
        except Exception as error:
            log_failure(logger, error, "group %s: its leader did not get newer settings; sending them again", group_id)
            await asyncio.sleep(PAUSE_S)
