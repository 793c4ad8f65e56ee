"""A small grid whose leaders stand for election, as they do on Ray: they step down and come back with the job store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raygrid.core.lease import Lease
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from tests.support.small_grid import DirectLeader, SmallGrid, _Nodes


class ElectedLeader(DirectLeader):
    """Whoever leads the group at the moment of a call."""

    def __init__(self, candidate: Candidate) -> None:
        self._candidate = candidate
        self.cut = self.deaf = False

    @property
    def leader(self) -> Leader:
        """The leader.

        Raises:
            UnavailableError: the candidate does not lead now.
        """
        return self._candidate.leader


class ElectedGrid(SmallGrid):
    """One candidate for each group.

    Attributes:
        terms: the terms in which somebody led, in order.
    """

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)
        self.terms: list[int] = []
        self._candidates: list[asyncio.Task[None]] = []

    async def new_leader(self, group_id: str) -> None:
        """Let a candidate stand for the group."""

        async def lead(lease: Lease, over: Callable[[], None]) -> Leader:
            self.terms.append(lease.term)
            leader = Leader(lease, self.settings, self.store, _Nodes(self._members[group_id]), over)
            await leader.open()
            return leader

        candidate = Candidate(group_id, f"{group_id}/only", self.store, lead)
        self._candidates.append(asyncio.create_task(candidate.run()))
        self.leaders[group_id] = self._groups.all[group_id] = ElectedLeader(candidate)

    async def __aexit__(self, *error: object) -> None:
        for candidate in self._candidates:
            candidate.cancel()
        await asyncio.gather(*self._candidates, return_exceptions=True)
        self.leaders.clear()
        await super().__aexit__(*error)
