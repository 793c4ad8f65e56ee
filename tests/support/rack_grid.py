"""A small grid of racks whose switches can be cut: nothing passes in or out of a rack, nor between its machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raygrid.core.lease import Lease
from raygrid.errors import UnavailableError
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from raygrid.store import JobStore
from tests.support.elected_grid import ElectedGrid, ElectedLeader
from tests.support.small_grid import _Nodes


class CutStore:
    """The job store behind a line that can be cut; what is called then does not get there."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if self.cut:
                raise UnavailableError("the line to the job store is cut")
            return await method(*args, **kwargs)

        return call


class RackGrid(ElectedGrid):
    """An elected grid in which each rack has a line of its own to the job store."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.lines: dict[str, CutStore] = {}

    async def new_leader(self, group_id: str) -> None:  # type: ignore[override]
        """Let a candidate stand for the group."""
        line: Any = self.lines.setdefault(group_id, CutStore(self.store))

        async def lead(lease: Lease, over: Callable[[], None]) -> Leader:
            self.terms.append(lease.term)
            leader = Leader(lease, self.settings, line, _Nodes(self._members[group_id]), over)
            await leader.open()
            return leader

        candidate = Candidate(group_id, f"{group_id}/only", line, lead)
        self._candidates.append(asyncio.create_task(candidate.run()))
        self.leaders[group_id] = self._groups.all[group_id] = ElectedLeader(candidate)  # type: ignore[assignment]

    def cut_rack(self, group_id: str, *, cut: bool = True) -> None:
        """Cut a rack's switch, or heal it. What runs on its nodes goes on."""
        self.lines[group_id].cut = self.leaders[group_id].cut = cut
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
