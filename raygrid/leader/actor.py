"""A leader candidate as a Ray actor: the only file of this tier that knows Ray, through the links."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from raygrid.core.lease import Lease
from raygrid.errors import RaygridError
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from raygrid.leader.service import LeaderService
from raygrid.settings.model import GridSettings
from raygrid.store import SqlStore
from raygrid.system.garbage_collection import spare_what_is_loaded
from raygrid.system.heartbeat import Heartbeat, start_guarded
from raygrid.system.log_files import keep_logs
from raygrid.system.processes import forbid_tracing
from raygrid.transport.actors import node_address
from raygrid.transport.calls import exposes
from raygrid.transport.direct_server import DirectAddress, DirectServer
from raygrid.transport.nodes import RayNodes
from raygrid.transport.ports import LeaderCalls

logger = logging.getLogger(__name__)

OPEN_AGAIN_S = 2.0
FROZEN_S = 8.0  # a process frozen for longer is killed: another candidate leads, and it may hold SQLite's write lock
REFRESH_S = 5.0  # a standby candidate refreshes its links to the nodes this often, to have them when it leads


@exposes(LeaderCalls)
class LeaderActor:
    """A candidate to lead a group, on one node of the group's rack. Its calls are those of `LeaderCalls`."""

    def __init__(self, group_id: str, settings: GridSettings, address: str, agent_class: type[Any]) -> None:
        forbid_tracing()
        keep_logs(f"leader {group_id}")
        self._group_id = group_id
        self._store = SqlStore(settings.database_url)
        self._nodes = RayNodes(group_id, settings, agent_class)
        self._candidate = Candidate(group_id, f"{address}/{uuid4().hex[:8]}", self._store, self._lead)
        self._service = LeaderService(self._candidate, settings, self._nodes.configure)
        self._server: DirectServer[LeaderCalls] = DirectServer(LeaderCalls, self._service)
        self._tasks: list[asyncio.Task[None]] = []
        self._heartbeat: Heartbeat | None = None

    @property
    def calls(self) -> LeaderCalls:
        """The implementation of the calls; the first call makes a restarted actor stand for election."""
        self._begin()
        return self._service

    async def open(self) -> None:
        """Stand for election; further calls have no effect."""
        self._begin()

    async def direct_address(self) -> DirectAddress | None:
        """The address for direct calls from parents; None if there is none."""
        self._begin()
        return await self._server.address(node_address())

    async def close(self) -> None:
        """Step down and close the store."""
        try:
            await self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._nodes.close()
            await self._store.close()
        finally:
            if self._heartbeat is not None:  # otherwise the guard would take this process for frozen
                await asyncio.to_thread(self._heartbeat.close)

    def _begin(self) -> None:
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._run(), name=f"candidate {self._group_id}"),
            loop.create_task(self._keep_links(), name=f"nodes of {self._group_id}"),
        ]
        try:
            self._heartbeat = start_guarded(FROZEN_S)
            self._heartbeat.follow(loop)
        except OSError as error:
            logger.warning("group %s: the candidate runs without a guard process: %s", self._group_id, error)

    async def _run(self) -> None:
        while True:
            try:
                await self._store.open()
                break
            except Exception as error:  # any error may be temporary, and the group needs a leader afterwards
                logger.warning("group %s: cannot open the job store; trying again: %s", self._group_id, error)
                await asyncio.sleep(OPEN_AGAIN_S)
        spare_what_is_loaded()
        await self._candidate.run()

    async def _keep_links(self) -> None:
        while True:
            if not self._candidate.leads:
                with contextlib.suppress(RaygridError):
                    await self._nodes.nodes()
            await asyncio.sleep(REFRESH_S)

    async def _lead(self, lease: Lease, over: Callable[[], None]) -> Leader:
        leader = Leader(lease, self._service.settings, self._store, self._nodes, over)
        await leader.open()
        leader.configure(self._service.settings)  # newer settings may have arrived meanwhile
        return leader
