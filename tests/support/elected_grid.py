"""A small grid whose leaders stand for election, as on Ray: they step down and come back with the job store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from raygrid.core.lease import Lease
from raygrid.errors import ProcessEndedError, UnavailableError
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from raygrid.leader.service import LeaderService
from raygrid.settings.model import GridSettings
from raygrid.store import SqlStore
from raygrid.transport.calls import DeclaredCall, link_to
from raygrid.transport.ports import LeaderCalls, NodeCalls
from tests.support.calls import answer_of
from tests.support.small_grid import DirectLeader, SmallGrid, _Nodes


class Thaw:
    """A gate that is open until `freeze` closes it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def freeze(self) -> None:
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        await self._open.wait()


class FrozenStore(SqlStore):
    """The job store as a candidate sees it: its calls wait while the candidate is frozen."""

    def __init__(self, url: str | Path, gate: Thaw) -> None:
        super().__init__(url)
        self._gate = gate

    def __getattribute__(self, name: str) -> object:
        found = super().__getattribute__(name)
        if name not in (
            "acquire_lease",
            "release_lease",
            "leases",
            "record",
            "queued",
            "running",
            "count_queued",
            "unfinished_of",
        ):
            return found

        async def slowly(*args: object, **named: object) -> object:
            await self._gate.passed()
            return await found(*args, **named)

        return slowly


def behind(gate: Thaw, node: NodeCalls) -> NodeCalls:
    """A node as a candidate sees it: calls wait while the candidate is frozen."""

    async def carry(call: DeclaredCall, args: tuple[Any, ...]) -> Any:
        await gate.passed()
        return await answer_of(node, call, args)

    return link_to(NodeCalls, carry)


class StandingLeader(DirectLeader):
    """A candidate called directly; it leads or stands by. `gate` freezes it."""

    def __init__(self, candidate: Candidate, gate: Thaw, settings: GridSettings) -> None:
        self.candidate = candidate
        self.gate = gate
        self.cut = self.deaf = self.ended = False
        self.running: asyncio.Task[None] | None = None
        self.link = link_to(LeaderCalls, self._carry)
        self._service = LeaderService(candidate, settings)

    @property
    def leader(self) -> Leader:
        """The leader.

        Raises:
            NotLeadingError: the candidate does not lead now.
        """
        return self.candidate.leader

    async def _carry(self, call: DeclaredCall, args: tuple[Any, ...]) -> Any:
        if self.ended:
            raise ProcessEndedError("the candidate's process has ended")
        if not self.cut:
            try:
                async with asyncio.timeout(1):
                    await self.gate.passed()
            except TimeoutError:
                raise UnavailableError("the candidate did not answer in time") from None
        return await super()._carry(call, args)

    async def die(self) -> None:
        """End as a killed process does: nothing is written, nothing is released."""
        self.cut = self.ended = True
        self.gate.freeze()
        if self.running is not None:
            self.running.cancel()
            await asyncio.gather(self.running, return_exceptions=True)


class ElectedGrid(SmallGrid):
    """Each group has `candidates` candidates, one by default.

    Attributes:
        standing: the candidates by group.
        terms: the terms in which a candidate led, in order.
    """

    def __init__(self, directory: Path, *, candidates: int = 1, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self._count = candidates
        self.terms: list[int] = []
        self.standing: dict[str, list[StandingLeader]] = {}

    async def _open_group(self, group_id: str) -> None:
        """Let candidates stand for the group."""
        self.standing[group_id] = [await self._stand(group_id, number + 1) for number in range(self._count)]
        self.leaders[group_id] = self.standing[group_id][0]
        self._groups.all[group_id] = self.leaders[group_id].link
        self._groups.candidates[group_id] = [each.link for each in self.standing[group_id]]

    async def _stand(self, group_id: str, number: int) -> StandingLeader:
        gate = Thaw()
        store = FrozenStore(self.settings.database_url, gate)
        await store.open()
        nodes = _Nodes({name: behind(gate, node) for name, node in self._members[group_id].items()})

        async def lead(lease: Lease, over: Callable[[], None]) -> Leader:
            self.terms.append(lease.term)
            leader = Leader(lease, self.settings, store, nodes, over)
            await leader.open()
            return leader

        standing = StandingLeader(Candidate(group_id, f"{group_id}/{number}", store, lead), gate, self.settings)
        standing.running = asyncio.create_task(standing.candidate.run())
        return standing

    async def leading(self, group_id: str, *, besides: StandingLeader | None = None) -> StandingLeader:
        """The candidate that leads, once one does; not `besides`, which may not have noticed the end of its lease."""

        async def is_led() -> bool:
            return any(each.candidate.leads for each in self.standing[group_id] if each is not besides)

        await self.until(is_led)
        return next(each for each in self.standing[group_id] if each is not besides and each.candidate.leads)

    async def __aexit__(self, *error: object) -> None:
        for standing in (each for group in self.standing.values() for each in group):
            standing.gate.thaw()
            assert standing.running is not None
            standing.running.cancel()
            await asyncio.gather(standing.running, return_exceptions=True)
            await standing.candidate._store.close()
        self.leaders.clear()
        await super().__aexit__(*error)
