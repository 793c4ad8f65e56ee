"""Parents of a simulation: the real `Parent`, with a blob store that is always there, and its clients' requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

from raygrid.blobs import BlobStore
from raygrid.core.access import LOCAL
from raygrid.models import DoneJob, NewJob, StoredJob
from raygrid.parent.service import Parent, Submitted
from raygrid.transport.calls import link_to
from raygrid.transport.ports import LeaderCalls
from tests.simulation.clock import Process
from tests.simulation.leaders import SimulatedCandidate
from tests.simulation.network import Part
from tests.simulation.world import World

MARKER = "marker"


class WorldOfGroups(World, Protocol):
    """The grid, with the candidates of its groups."""

    candidate_parts: dict[str, list[Part[SimulatedCandidate]]]


class _Blobs:
    """A blob store that only confirms that it is the grid's; payloads are not simulated."""

    is_directory = False
    shown = "the simulation's blob store"
    trouble: str | None = None

    def expect(self, marker: str) -> None:
        """There is only one."""

    def read_marker_now(self) -> str:
        """The marker."""
        return MARKER


class _Caches:
    """No parent of a simulation reads results."""

    async def results(self, address: str, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """See `ResultCaches.results`."""
        return [None] * len(job_ids)


class SimulatedGroups:
    """The groups and their candidates, as Ray lists them."""

    def __init__(self, grid: WorldOfGroups, host: str) -> None:
        self._grid, self._host = grid, host
        self._links: dict[str, Sequence[LeaderCalls]] = {
            group_id: [link_to(LeaderCalls, grid.network.carrier(host, part)) for part in parts]
            for group_id, parts in grid.candidate_parts.items()
        }

    async def groups(self) -> Mapping[str, Sequence[LeaderCalls]]:
        """See `GroupDiscovery.groups`."""
        await self._grid.network.call(self._host, self._grid.head, "groups", lambda _: None)
        return dict(self._links)


class SimulatedParent:
    """One life of a parent."""

    def __init__(self, grid: WorldOfGroups, host: str, process: Process) -> None:
        store = grid.store_for(process, host)
        blobs = cast(BlobStore, _Blobs())
        self.parent = Parent(grid.settings, store, blobs, SimulatedGroups(grid, host), _Caches())
        self.parent.sweeper.holder = f"{host}/parent since {grid.loop.time():.6f}"  # the same in every run of a seed
        process.spawn(self.parent.open())

    async def submit(self, job: NewJob) -> Submitted:
        """What `POST /submit/{jobId}` comes to."""
        return await self.parent.submit(self._pinned(job), LOCAL)

    async def submit_batch(self, batch_id: str, jobs: Sequence[NewJob]) -> list[Submitted]:
        """What `POST /batches/{batchId}` comes to."""
        accepted, _ = await self.parent.submit_batch(batch_id, [self._pinned(job) for job in jobs], LOCAL)
        return accepted

    def _pinned(self, job: NewJob) -> NewJob:
        """The job as made of a form."""
        name = job.spec.pricer
        version, definition = self.parent.settings.pricers[name].version, self.parent.definitions.digest(name)
        spec = replace(job.spec, version=version, definition=definition, owner=LOCAL.owner)
        return replace(job, spec=spec)

    async def wait(self, job_id: str, wait_s: float) -> StoredJob | DoneJob:
        """What `GET /result/{jobId}` waits for."""
        return await self.parent.wait(job_id, wait_s)

    async def cancel(self, job_ids: Sequence[str]) -> int:
        """What `DELETE /jobs/{jobId}` comes to."""
        return await self.parent.cancel(job_ids, LOCAL)

    async def hand_over(self, group_id: str) -> None:
        """What `POST /groups/{group}/handover` comes to."""
        await self.parent.hand_over(group_id, LOCAL.owner)
