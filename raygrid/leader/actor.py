"""A leader candidate as a Ray actor: the only file of this tier that knows Ray, through the links."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from uuid import uuid4

from raygrid.core.lease import Lease
from raygrid.errors import RaygridError
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from raygrid.models import JobSpec, QueuedJob
from raygrid.settings.model import GridSettings
from raygrid.store import SqlStore
from raygrid.system.garbage_collection import spare_what_is_loaded
from raygrid.system.heartbeat import Pulse, start_guarded
from raygrid.system.log_files import keep_logs
from raygrid.transport.direct_server import Door, DoorAddress
from raygrid.transport.links import RayNodes, node_address
from raygrid.transport.ports import LeaderReply

logger = logging.getLogger(__name__)

OPEN_AGAIN_S = 2.0
FROZEN_S = 8.0  # another candidate leads since long; a frozen one stands by no more, and may hold SQLite's write lock
WARM_S = 5.0  # a candidate that stands by looks for the group's nodes this often, to know them when it comes to lead


class LeaderActor:
    """A candidate to lead a group, on one node of the group's rack."""

    def __init__(self, group_id: str, settings: GridSettings, address: str) -> None:
        keep_logs(f"leader {group_id}")
        self._group_id = group_id
        self._settings = settings
        self._store = SqlStore(settings.database_url)
        self._nodes = RayNodes(group_id, settings)
        self._candidate = Candidate(group_id, f"{address}/{uuid4().hex[:8]}", self._store, self._lead)
        self._tasks: list[asyncio.Task[None]] = []
        self._pulse: Pulse | None = None
        self._door: Door | None = None

    async def open(self) -> None:
        """Begin to stand for election; calling it again changes nothing."""
        self._open()

    def _open(self) -> None:
        # A restarted actor begins with the first call that it gets.
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [
                loop.create_task(self._run(), name=f"candidate {self._group_id}"),
                loop.create_task(self._keep_warm(), name=f"nodes of {self._group_id}"),
            ]
            try:
                self._pulse = start_guarded(FROZEN_S)
                self._pulse.follow(loop)
            except OSError as error:  # better a candidate without a guard than none
                logger.warning("group %s: its candidate has no guard: %s", self._group_id, error)

    async def _run(self) -> None:
        while True:
            try:
                await self._store.open()
                break
            except Exception as error:  # a group must not stay without a leader because the store came up later
                logger.warning("group %s: cannot open the job store; trying again: %s", self._group_id, error)
                await asyncio.sleep(OPEN_AGAIN_S)
        spare_what_is_loaded()
        await self._candidate.run()

    async def _keep_warm(self) -> None:
        while True:
            if not self._candidate.leads:
                with contextlib.suppress(RaygridError):
                    await self._nodes.nodes()
            await asyncio.sleep(WARM_S)

    async def _lead(self, lease: Lease, over: Callable[[], None]) -> Leader:
        leader = Leader(lease, self._settings, self._store, self._nodes, over)
        await leader.open()
        leader.configure(self._settings)  # newer ones may have come meanwhile
        return leader

    async def door(self) -> DoorAddress | None:
        """Where parents may call this candidate without Ray."""
        if self._door is None:
            self._door = Door(self, ("enqueue", "forget", "cancel", "changes", "configure", "hand_over", "stand"))
        return await self._door.address(node_address())

    @property
    def _leader(self) -> Leader:
        self._open()
        return self._candidate.leader

    async def enqueue(self, jobs: Sequence[JobSpec | QueuedJob]) -> None:
        """See `LeaderLink.enqueue`."""
        self._leader.enqueue(jobs)

    async def forget(self, job_ids: Sequence[str]) -> None:
        """See `LeaderLink.forget`."""
        await self._leader.forget(job_ids)

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """See `LeaderLink.cancel`."""
        self._leader.cancel(job_ids)

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """See `LeaderLink.changes`."""
        self._open()
        return await (await self._candidate.leading(wait_s)).changes(epoch, after, wait_s)

    async def configure(self, settings: GridSettings) -> None:
        """See `LeaderLink.configure`. A restarted actor has forgotten it, and is told again."""
        if settings.deployed_at > self._settings.deployed_at:
            self._settings = settings
            self._nodes.configure(settings)
        self._leader.configure(self._settings)

    async def hand_over(self) -> None:
        """See `LeaderLink.hand_over`."""
        self._open()
        await self._candidate.hand_over()

    async def stand(self) -> None:
        """See `LeaderLink.stand`."""
        self._open()
        self._candidate.stand()

    async def close(self) -> None:
        """Step down and let go of the store."""
        try:
            if self._door is not None:
                await self._door.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._nodes.close()
            await self._store.close()
        finally:
            if self._pulse is not None:  # or its guard would take this process for a frozen one
                await asyncio.to_thread(self._pulse.close)
