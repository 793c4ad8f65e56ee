"""A leader candidate as a Ray actor: the only file of this tier that knows Ray, through the links."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from uuid import uuid4

from raygrid.config import GridSettings
from raygrid.core.lease import Lease
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from raygrid.links import RayNodes
from raygrid.models import JobSpec
from raygrid.ports import LeaderReply
from raygrid.pulse import Pulse, start_guarded
from raygrid.store import SqlStore

logger = logging.getLogger(__name__)

OPEN_AGAIN_S = 2.0
FROZEN_S = 20.0  # another candidate leads since long; without this, the frozen one never stood by again


class LeaderActor:
    """A candidate to lead a group, pinned to the group's rack by its custom resource."""

    def __init__(self, group_id: str, settings: GridSettings) -> None:
        self._group_id = group_id
        self._settings = settings
        self._store = SqlStore(settings.database_url)
        self._nodes: RayNodes | None = None
        self._candidate: Candidate | None = None
        self._running: asyncio.Task[None] | None = None
        self._pulse: Pulse | None = None

    async def open(self) -> None:
        """Begin to stand for election; calling it again changes nothing."""
        if self._running is not None:
            return
        try:
            self._pulse = start_guarded(FROZEN_S)
            self._pulse.follow(asyncio.get_running_loop())
        except OSError as error:  # better a candidate without a guard than none
            logger.warning("group %s: its candidate has no guard: %s", self._group_id, error)
        self._candidate = Candidate(self._group_id, f"{self._group_id}/{uuid4().hex[:8]}", self._store, self._lead)
        self._running = asyncio.get_running_loop().create_task(self._run(), name=f"candidate {self._group_id}")

    async def _run(self) -> None:
        assert self._candidate is not None
        while True:
            try:
                await self._store.open()
                break
            except Exception as error:  # a group must not stay without a leader because the store came up later
                logger.warning("group %s: cannot open the job store; trying again: %s", self._group_id, error)
                await asyncio.sleep(OPEN_AGAIN_S)
        await self._candidate.run()

    async def _lead(self, lease: Lease, over: Callable[[], None]) -> Leader:
        self._nodes = RayNodes(self._group_id, self._settings)
        leader = Leader(lease, self._settings, self._store, self._nodes, over)
        await leader.open()
        leader.configure(self._settings)  # newer ones may have come meanwhile
        return leader

    async def _leader(self) -> Leader:
        await self.open()  # a restarted actor begins with the first call it gets
        assert self._candidate is not None
        return self._candidate.leader

    async def enqueue(self, jobs: Sequence[JobSpec]) -> None:
        """See `LeaderLink.enqueue`."""
        (await self._leader()).enqueue(jobs)

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """See `LeaderLink.cancel`."""
        (await self._leader()).cancel(job_ids)

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """See `LeaderLink.changes`."""
        return await (await self._leader()).changes(epoch, after, wait_s)

    async def configure(self, settings: GridSettings) -> None:
        """See `LeaderLink.configure`. A restarted actor has forgotten it, and is told again."""
        if settings.deployed_at > self._settings.deployed_at:
            self._settings = settings
            if self._nodes is not None:
                self._nodes.configure(settings)
        (await self._leader()).configure(self._settings)

    async def close(self) -> None:
        """Step down and let go of the store."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        await self._store.close()
        if self._pulse is not None:
            await asyncio.to_thread(self._pulse.close)
