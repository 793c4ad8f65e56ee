"""The node agent as a Ray actor: the only file of this tier that knows Ray."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import ray

from raygrid.blobs import BlobStore
from raygrid.node.agent import NodeAgent
from raygrid.node.sandbox.escapes import code_of_others
from raygrid.node.sandbox.hidden import hidden_paths
from raygrid.node.service import AgentService
from raygrid.settings.model import GridSettings
from raygrid.system.garbage_collection import spare_what_is_loaded
from raygrid.system.grid_file import NAME as GRID_FILE
from raygrid.system.log_files import keep_logs
from raygrid.system.permissions import can_change
from raygrid.system.processes import forbid_tracing
from raygrid.transport.actors import node_address
from raygrid.transport.calls import exposes
from raygrid.transport.direct_server import DirectAddress, DirectServer
from raygrid.transport.ports import AgentCalls

GET_TIMEOUT_S = 5.0


def hidden_from_pricers(settings: GridSettings) -> tuple[str, ...]:
    """The files and directories of the grid and of Ray on this machine, which sandboxes hide."""
    needed = (Path(sys.prefix), Path(sys.base_prefix))
    node: Any = ray._private.worker._global_node  # its type says None
    session = Path(node.get_session_dir_path())
    found = hidden_paths(
        settings, os.environ, Path.home(), uid=os.getuid(), needed=needed, ray_directory=session.parent
    )
    # Other grids that keep their state in the same directory, for the case that a pricer is shown that directory.
    others = settings.grid_dir.parent.glob(f"*/{GRID_FILE}")
    return tuple(sorted({*map(str, found), *(str(file.parent) for file in others)}))


class ObjectStorePacks:
    """Keeps packs of results in Ray's object store. The agent owns them: when it dies, they are gone."""

    def put(self, data: bytes) -> object:
        """Put a pack into the object store of this node."""
        return ray.put(data)

    def get(self, handle: object) -> bytes | None:
        """Read it back; None if Ray dropped it."""
        try:
            data: bytes = ray.get(handle, timeout=GET_TIMEOUT_S)  # type: ignore[call-overload]  # a handle is opaque to the cache
        except ray.exceptions.RayError:
            return None
        return data


def read_only_for_pricers() -> tuple[str, ...]:
    """The grid's own programs, and files with commands that the user's shells run; sandboxes make these read-only."""
    installation = (Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[1])
    found = code_of_others(Path.home(), installation, [Path(tempfile.gettempdir())])
    # What does not exist yet may be made while the grid runs.
    return tuple(str(path) for path in found if can_change(str(path)) or not os.path.lexists(path))


@exposes(AgentCalls)
class NodeAgentActor:
    """The agent of one Ray node. Its calls are those of `AgentCalls`."""

    def __init__(self, node_id: str, settings: GridSettings, address: str) -> None:
        forbid_tracing()
        keep_logs(f"agent {node_id}")
        root = settings.grid_dir / "nodes" / node_id
        self._agent = NodeAgent(
            node_id,
            Path(root),
            dict(settings.pricers),
            settings.node,
            BlobStore(settings.blobs_url, settings.storage.blob_options),
            ObjectStorePacks(),
            address,
            settings.deployed_at,
            own_process=True,
            hidden=hidden_from_pricers(settings),
            read_only=read_only_for_pricers(),
        )
        self._agent.open()
        spare_what_is_loaded()
        self._service = AgentService(self._agent, hidden_from_pricers)
        self._server: DirectServer[AgentCalls] = DirectServer(AgentCalls, self._service)

    @property
    def calls(self) -> AgentCalls:
        """The implementation of the calls."""
        return self._service

    async def direct_address(self) -> DirectAddress | None:
        """The address at which leaders may call this agent without Ray."""
        return await self._server.address(node_address())

    async def close(self) -> None:
        """End everything that this agent started."""
        await self._server.close()
        await asyncio.to_thread(self._agent.close)
