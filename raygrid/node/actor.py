"""The node agent as a Ray actor: the only file of this tier that knows Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import ray

from raygrid.blobs import BlobStore
from raygrid.core.group.events import AttemptOrder
from raygrid.models import AttemptId, Definition
from raygrid.node.agent import NodeAgent
from raygrid.settings.model import GridSettings
from raygrid.system.garbage_collection import spare_what_is_loaded
from raygrid.system.log_files import keep_logs
from raygrid.transport.direct_server import Door, DoorAddress
from raygrid.transport.ports import NodeReply

GET_TIMEOUT_S = 5.0


class ObjectStoreShelf:
    """Keeps packs of results in Ray's object store. The agent owns them: when it dies they are gone, as a cache may."""

    def put(self, data: bytes) -> object:
        """Put a pack into the object store of this node."""
        return ray.put(data)

    def get(self, handle: object) -> bytes | None:
        """Read it back; None where Ray had to drop it."""
        try:
            data: bytes = ray.get(handle, timeout=GET_TIMEOUT_S)  # type: ignore[call-overload]  # a handle is opaque to the cache
        except ray.exceptions.RayError:
            return None
        return data


class NodeAgentActor:
    """One per Ray node of a group; named after it."""

    def __init__(self, node_id: str, settings: GridSettings, address: str) -> None:
        keep_logs(f"agent {node_id}")
        root = settings.grid_dir / "nodes" / node_id
        self._agent = NodeAgent(
            node_id,
            Path(root),
            dict(settings.pricers),
            settings.node,
            BlobStore(settings.blobs_url, settings.storage.blob_options),
            ObjectStoreShelf(),
            address,
            settings.deployed_at,
            own_process=True,
        )
        self._agent.open()
        spare_what_is_loaded()
        self._door: Door | None = None

    async def door(self) -> DoorAddress | None:
        """Where leaders may call this agent without Ray."""
        if self._door is None:
            self._door = Door(self, ("start", "stop", "reports", "configure"))
        return await self._door.address(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # by Ray

    async def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        """See `NodeLink.start`."""
        self._agent.start(term, orders, definitions)

    async def stop(self, term: int, attempts: Sequence[AttemptId]) -> None:
        """See `NodeLink.stop`."""
        self._agent.stop(term, attempts)

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        """See `NodeLink.reports`."""
        return await self._agent.reports(term, after, settled, wait_s)

    async def configure(self, term: int, settings: GridSettings) -> None:
        """See `NodeLink.configure`. A restarted actor has forgotten it, and is told again."""
        self._agent.configure(term, dict(settings.pricers), settings.node, settings.deployed_at)

    async def results(self, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """See `ResultCaches.results`."""
        return await asyncio.to_thread(self._agent.results, key, job_ids)

    async def close(self) -> None:
        """End everything this agent started."""
        if self._door is not None:
            await self._door.close()
        await asyncio.to_thread(self._agent.close)
