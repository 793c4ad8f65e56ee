"""A small grid of racks whose switches can be cut: no call passes in or out of a rack, nor between its machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from raygrid.core.lease import Lease
from raygrid.errors import UnavailableError
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from raygrid.store import JobStore, SqlStore
from tests.support.elected_grid import ElectedGrid, StandingLeader, Thaw
from tests.support.small_grid import _Nodes


class CutStore:
    """The job store behind a link that can be cut; then every call fails as unavailable."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.cut and name != "close":
                raise UnavailableError("the line to the job store is cut")
            return await method(*args, **kwargs)

        return call


class RackGrid(ElectedGrid):
    """An elected grid in which each rack has a line of its own to the job store."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self.lines: dict[str, list[CutStore]] = {}

    async def _stand(self, group_id: str, number: int) -> StandingLeader:
        store = SqlStore(self.settings.database_url)
        await store.open()
        cut = CutStore(store)
        self.lines.setdefault(group_id, []).append(cut)
        line = cast(JobStore, cut)  # it passes every method on
        nodes = _Nodes(self._members[group_id])

        async def lead(lease: Lease, over: Callable[[], None]) -> Leader:
            self.terms.append(lease.term)
            leader = Leader(lease, self.settings, line, nodes, over)
            await leader.open()
            return leader

        standing = StandingLeader(Candidate(group_id, f"{group_id}/{number}", line, lead), Thaw(), self.settings)
        standing.running = asyncio.create_task(standing.candidate.run())
        return standing

    def cut_rack(self, group_id: str, *, cut: bool = True) -> None:
        """Cut a rack's switch, or heal it. What runs on its nodes goes on."""
        for line, standing in zip(self.lines[group_id], self.standing[group_id], strict=True):
            line.cut = standing.cut = cut
        self.cut_nodes(group_id, cut=cut)

    def cut_nodes(self, group_id: str, *, cut: bool = True) -> None:
        """Cut the lines of all nodes of a rack, or heal them; its leader is not on them."""
        for name, node in self.nodes.items():
            if name.startswith(f"{group_id}-"):
                node.cut = cut

    def running(self, group_id: str) -> list[str]:
        """The jobs that run on the nodes of a rack."""
        members = [node.agent for name, node in self.nodes.items() if name.startswith(f"{group_id}-")]
        return [attempt.job_id for agent in members for attempt in agent._state().running]
