"""Leaders of a simulation: the real `Candidate` and `Leader`, with what `raygrid.leader.actor` is on Ray, and links."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from raygrid.core.group.events import AttemptOrder
from raygrid.core.lease import Lease
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from raygrid.models import AttemptId, Definition, JobSpec, QueuedJob
from raygrid.settings.model import GridSettings
from raygrid.transport.ports import LeaderReply, NodeLink, NodeReply
from tests.simulation.clock import Process
from tests.simulation.network import POLL_SLACK_S, Network, Part
from tests.simulation.nodes import SimulatedAgent

if TYPE_CHECKING:
    from tests.simulation.grid import Grid


class SimulatedNodeLink:
    """A node agent, as a leader on some host reaches it."""

    def __init__(self, network: Network, host: str, part: Part[SimulatedAgent], ordered: set[AttemptId]) -> None:
        self._network, self._host, self._part = network, host, part
        self._ordered = ordered

    async def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        """See `NodeLink.start`."""
        self._ordered.update(order.attempt for order in orders)
        await self._network.call(self._host, self._part, "start", lambda agent: agent.start(term, orders, definitions))

    async def stop(self, term: int, attempts: Sequence[AttemptId]) -> None:
        """See `NodeLink.stop`."""
        await self._network.call(self._host, self._part, "stop", lambda agent: agent.stop(term, attempts))

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        """See `NodeLink.reports`."""

        def ask(agent: SimulatedAgent) -> object:
            return agent.reports(term, after, settled, wait_s)

        reply: NodeReply = await self._network.call(self._host, self._part, "reports", ask, wait_s + POLL_SLACK_S)
        return reply

    async def configure(self, term: int, settings: GridSettings) -> None:
        """See `NodeLink.configure`."""
        await self._network.call(self._host, self._part, "configure", lambda agent: agent.configure(term, settings))


class SimulatedNodes:
    """The nodes of a group, as Ray's books have them: one that is back after its host was down is another one."""

    def __init__(self, grid: Grid, group_id: str, host: str) -> None:
        self._grid, self._group_id, self._host = grid, group_id, host
        self._links: dict[tuple[str, int], SimulatedNodeLink] = {}
        self.ordered: set[AttemptId] = set()  # what was handed over through these links

    async def nodes(self) -> Mapping[str, NodeLink]:
        """See `NodeDirectory.nodes`."""
        members = await self._grid.network.call(self._host, self._grid.head, "nodes", lambda books: dict(books.members))
        found: dict[str, NodeLink] = {}
        for name, registration in members.items():
            if self._grid.group_of(name) == self._group_id:
                key = (name, registration)
                if key not in self._links:
                    part = self._grid.agent_parts[name]
                    self._links[key] = SimulatedNodeLink(self._grid.network, self._host, part, self.ordered)
                found[name] = self._links[key]
        return found


class SimulatedCandidate:
    """One life of a candidate: what `raygrid.leader.actor.LeaderActor` does, without Ray."""

    def __init__(self, grid: Grid, group_id: str, holder: str, host: str, process: Process) -> None:
        self._grid, self._group_id, self._host, self._process = grid, group_id, host, process
        self._store = grid.store_for(process, host)
        self.candidate = Candidate(group_id, holder, self._store, self._lead)
        process.spawn(self.candidate.run())

    async def _lead(self, lease: Lease, over: Callable[[], None]) -> Leader:
        nodes = SimulatedNodes(self._grid, self._group_id, self._host)
        offset_s = self._grid.wall_base + self._process.wall_offset_s
        loop = self._grid.loop
        leader = Leader(lease, self._grid.settings, self._store, nodes, over, lambda: offset_s + loop.time())
        self._grid.watch.leads(leader, nodes.ordered)
        await leader.open()
        return leader

    def enqueue(self, jobs: Sequence[JobSpec | QueuedJob]) -> None:
        """See `LeaderLink.enqueue`."""
        self.candidate.leader.enqueue(jobs)

    async def forget(self, job_ids: Sequence[str]) -> None:
        """See `LeaderLink.forget`."""
        await self.candidate.leader.forget(job_ids)

    def cancel(self, job_ids: Sequence[str]) -> None:
        """See `LeaderLink.cancel`."""
        self.candidate.leader.cancel(job_ids)

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """See `LeaderLink.changes`."""
        return await (await self.candidate.leading(wait_s)).changes(epoch, after, wait_s)

    def configure(self, settings: GridSettings) -> None:
        """See `LeaderLink.configure`."""
        self.candidate.leader.configure(settings)

    async def hand_over(self) -> None:
        """See `LeaderLink.hand_over`."""
        await self.candidate.hand_over()

    def stand(self) -> None:
        """See `LeaderLink.stand`."""
        self.candidate.stand()


class SimulatedLeaderLink:
    """A candidate, as a parent on some host reaches it."""

    def __init__(self, network: Network, host: str, part: Part[SimulatedCandidate]) -> None:
        self._network, self._host, self._part = network, host, part

    async def enqueue(self, jobs: Sequence[JobSpec | QueuedJob]) -> None:
        """See `LeaderLink.enqueue`."""
        await self._network.call(self._host, self._part, "enqueue", lambda leader: leader.enqueue(jobs))

    async def forget(self, job_ids: Sequence[str]) -> None:
        """See `LeaderLink.forget`."""
        await self._network.call(self._host, self._part, "forget", lambda leader: leader.forget(job_ids))

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """See `LeaderLink.cancel`."""
        await self._network.call(self._host, self._part, "cancel", lambda leader: leader.cancel(job_ids))

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """See `LeaderLink.changes`."""

        def ask(leader: SimulatedCandidate) -> object:
            return leader.changes(epoch, after, wait_s)

        reply: LeaderReply = await self._network.call(self._host, self._part, "changes", ask, wait_s + POLL_SLACK_S)
        return reply

    async def configure(self, settings: GridSettings) -> None:
        """See `LeaderLink.configure`."""
        await self._network.call(self._host, self._part, "configure", lambda leader: leader.configure(settings))

    async def hand_over(self) -> None:
        """See `LeaderLink.hand_over`."""
        await self._network.call(self._host, self._part, "hand_over", lambda leader: leader.hand_over())

    async def stand(self) -> None:
        """See `LeaderLink.stand`."""
        await self._network.call(self._host, self._part, "stand", lambda leader: leader.stand())
