"""Leaders of a simulation: the real `Candidate` and `Leader`, with what `raygrid.leader.actor` is on Ray, and links."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from raygrid.core.lease import Lease
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from raygrid.leader.service import LeaderService
from raygrid.models import AttemptId
from raygrid.transport.calls import DeclaredCall, exposes, link_to
from raygrid.transport.ports import LeaderCalls, NodeCalls
from tests.simulation.clock import Process
from tests.simulation.network import Network, Part
from tests.simulation.nodes import SimulatedAgent
from tests.simulation.world import World


class Observer(Protocol):
    """Looks at what leaders do."""

    def leads(self, leader: Leader, ordered: set[AttemptId]) -> None:
        """A leader begins; `ordered` is filled with the attempts that it hands over."""


class WatchedWorld(World, Protocol):
    """The grid, with the observer of its leaders."""

    @property
    def watch(self) -> Observer:
        """The observer of the leaders."""


def node_link(network: Network, host: str, part: Part[SimulatedAgent], ordered: set[AttemptId]) -> NodeCalls:
    """A node agent, as a leader on some host reaches it; records in `ordered` what is handed over."""
    carrier = network.carrier(host, part)

    async def carry(call: DeclaredCall, args: tuple[Any, ...]) -> Any:
        if call.name == "start":
            ordered.update(order.attempt for order in args[1])
        return await carrier(call, args)

    return link_to(NodeCalls, carry)


class SimulatedNodes:
    """The nodes of a group, as Ray lists them: a node that is back after its host was down counts as another one."""

    def __init__(self, grid: WatchedWorld, group_id: str, host: str) -> None:
        self._grid, self._group_id, self._host = grid, group_id, host
        self._links: dict[tuple[str, int], NodeCalls] = {}
        self.ordered: set[AttemptId] = set()  # what was handed over through these links

    async def nodes(self) -> Mapping[str, NodeCalls]:
        """See `NodeDiscovery.nodes`."""
        members = await self._grid.network.call(self._host, self._grid.head, "nodes", lambda books: dict(books.members))
        found: dict[str, NodeCalls] = {}
        for name, registration in members.items():
            if self._grid.group_of(name) == self._group_id:
                key = (name, registration)
                if key not in self._links:
                    part = self._grid.agent_parts[name]
                    self._links[key] = node_link(self._grid.network, self._host, part, self.ordered)
                found[name] = self._links[key]
        return found


@exposes(LeaderCalls)
class SimulatedCandidate:
    """One life of a candidate: what `raygrid.leader.actor.LeaderActor` does, without Ray."""

    def __init__(self, grid: WatchedWorld, group_id: str, holder: str, host: str, process: Process) -> None:
        self._grid, self._group_id, self._host, self._process = grid, group_id, host, process
        self._store = grid.store_for(process, host)
        self.candidate = Candidate(group_id, holder, self._store, self._lead)
        self._service = LeaderService(self.candidate, grid.settings)
        process.spawn(self.candidate.run())

    @property
    def calls(self) -> LeaderCalls:
        """Carries the calls out, as for the real actor."""
        return self._service

    async def _lead(self, lease: Lease, over: Callable[[], None]) -> Leader:
        nodes = SimulatedNodes(self._grid, self._group_id, self._host)
        offset_s = self._grid.wall_base + self._process.wall_offset_s
        loop = self._grid.loop
        leader = Leader(lease, self._grid.settings, self._store, nodes, over, lambda: offset_s + loop.time())
        self._grid.watch.leads(leader, nodes.ordered)
        await leader.open()
        return leader
