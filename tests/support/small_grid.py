"""A whole grid in one process, without Ray: real parent over real HTTP, real leaders, real node agents, real store.

The tiers are connected by direct calls in place of Ray's. Pricers are real processes.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self, cast

import httpx
import uvicorn

from raygrid.blobs import BlobStore
from raygrid.errors import UnavailableError
from raygrid.leader.dispatch import Leader
from raygrid.leader.election import Candidate
from raygrid.leader.service import LeaderService
from raygrid.node.agent import NodeAgent
from raygrid.node.service import AgentService
from raygrid.parent.audit import AuditLog
from raygrid.parent.blob_check import BlobCheck
from raygrid.parent.housekeeping import Housekeeping
from raygrid.parent.http.app import build_app
from raygrid.parent.http.connection import KEEP_ALIVE_S
from raygrid.parent.service import Parent
from raygrid.settings.model import GridSettings, load_settings
from raygrid.store import SqlStore
from raygrid.transport.calls import DeclaredCall, link_to
from raygrid.transport.ports import LeaderCalls, NodeCalls
from tests.support.calls import answer_of
from tests.support.waiting import pauses

SHELL = {"command": ["sh", "{input}"]}
PRICERS: dict[str, dict[str, Any]] = {
    "shell": SHELL,
    "cat": {"command": "cat {input}", "result": "stdout"},
    "copy": {"command": "cp {input} copy"},
    "true": {"command": "true"},
    "args": {"command": ["sh", "-c", 'printf "%s\\n" "$@"', "sh", "{args}"]},
}


class DirectNode:
    """A node agent called directly; `cut` makes its calls fail. `link` is what its leader gets."""

    def __init__(self, agent: NodeAgent) -> None:
        self.agent = agent
        self.cut = False
        self.calls: list[str] = []
        self.definitions: list[str] = []  # digests of those that were sent to it
        self.link: NodeCalls = link_to(NodeCalls, self._carry)
        self._service = AgentService(agent)

    async def _carry(self, call: DeclaredCall, args: tuple[Any, ...]) -> Any:
        if self.cut:
            raise UnavailableError(f"node {self.agent.node_id} is cut off")
        self.calls.append(call.name)
        if call.name == "start":
            self.definitions += [each.digest for definitions in args[2:] for each in definitions]
        return await answer_of(self._service, call, args)


class _SoleCandidate:
    """A candidate that always leads."""

    def __init__(self, leader: Leader) -> None:
        self.leader = leader

    async def leading(self, _wait_s: float) -> Leader:
        return self.leader

    async def hand_over(self) -> None:
        raise UnavailableError("this leader stands alone")

    def stand(self) -> None:
        """It leads already."""


class DirectLeader:
    """A leader called directly; `cut` makes its calls fail, `deaf` those that announce jobs. Parents get its `link`."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self.cut = False
        self.deaf = False
        self.link: LeaderCalls = link_to(LeaderCalls, self._carry)
        self._service = LeaderService(cast(Candidate, _SoleCandidate(leader)), leader._settings)

    @property
    def leader(self) -> Leader:
        """The leader."""
        return self._leader

    async def _carry(self, call: DeclaredCall, args: tuple[Any, ...]) -> Any:
        if self.cut:
            raise UnavailableError("the leader is cut off")
        if self.deaf and call.name == "enqueue":
            raise UnavailableError("the call is lost")
        return await answer_of(self._service, call, args)


class _Nodes:
    def __init__(self, nodes: dict[str, NodeCalls]) -> None:
        self.all = nodes

    async def nodes(self) -> Mapping[str, NodeCalls]:
        return self.all

    def configure(self, settings: GridSettings) -> None:
        """It makes no agents, so it needs no settings."""

    def close(self) -> None:
        """Nothing to close."""


class _Groups:
    def __init__(self) -> None:
        self.all: dict[str, LeaderCalls] = {}
        self.candidates: dict[str, list[LeaderCalls]] = {}  # of groups that have more than one

    async def groups(self) -> Mapping[str, Sequence[LeaderCalls]]:
        return {group_id: self.candidates.get(group_id, [leader]) for group_id, leader in self.all.items()}


class _Caches:
    def __init__(self, agents: Mapping[str, NodeAgent]) -> None:
        self._agents = agents

    async def results(self, address: str, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        agent = self._agents.get(address)
        return agent.results(key, job_ids) if agent else [None] * len(job_ids)


class SmallGrid:
    """One parent, `racks` groups of `nodes` nodes each; use as an async context manager.

    Nodes share the parent's blob store, but those that `node_blobs` names have their own. The parent stands in the
    group `home`, if one is given.

    Attributes:
        http: a client bound to the parent's address.
        node_class: what connects a node to its leader.
        nodes: the nodes by name, such as `rack-a-1`.
        leaders: the leaders by group, such as `rack-a`.
        stale_terms: terms of leaders that were refused as stale.
    """

    node_class: type[DirectNode] = DirectNode

    def __init__(
        self,
        directory: Path,
        *,
        racks: int = 1,
        nodes: int = 1,
        slots: int = 2,
        node_blobs: Mapping[str, str] | None = None,
        home: str | None = None,
        **settings: Any,
    ) -> None:
        self._home = home
        settings.setdefault("pricers", PRICERS)
        settings["storage"] = {"state_dir": directory, **settings.get("storage", {})}
        settings["node"] = {"slots": slots, "kill_grace_s": 0.2, **settings.get("node", {})}
        self._given = settings
        self.settings: GridSettings = load_settings(None, name="small", **settings)
        self.directory = directory
        self._racks, self._per_rack = racks, nodes
        self._node_blobs = node_blobs or {}
        self.nodes: dict[str, DirectNode] = {}
        self.leaders: dict[str, DirectLeader] = {}
        self.stale_terms: list[int] = []
        self._members: dict[str, dict[str, NodeCalls]] = {}
        self._groups = _Groups()
        self.blobs = BlobStore(self.settings.blobs_url, self.settings.storage.blob_options, retry_s=2.0)
        self.store = SqlStore(self.settings.database_url)
        self.url = ""
        self.audit: AuditLog | None = None  # a test that reads one sets it, and closes it
        self._parents: list[tuple[uvicorn.Server, asyncio.Task[None], httpx.AsyncClient]] = []

    async def __aenter__(self) -> Self:
        await self.store.open()
        # Before there are leaders, as in a grid that parents have started.
        check = BlobCheck(self.store, self.blobs, is_default=True)
        await check.open()
        await check.close()
        for rack in range(self._racks):
            group_id = f"rack-{'abcdefgh'[rack]}"
            members = self._members[group_id] = {}
            for number in range(self._per_rack):
                members[f"{group_id}-{number + 1}"] = self.add_node(f"{group_id}-{number + 1}").link
            await self._open_group(group_id)
        await self._open_parent()
        return self

    async def deploy(self, *, beside: bool = False, **changes: Any) -> httpx.AsyncClient:
        """Deploy the grid anew: a parent with newer settings comes, and the one before goes, unless it stays `beside`.

        Gives the client of the parent before.
        """
        before = self._parents[-1]
        if not beside:
            await self._close_parent(self._parents.pop())
        settings = load_settings(None, name="small", **{**self._given, **changes})
        self.settings = settings.deployed(self.settings.deployed_at + 1)
        await self._open_parent()
        return before[2]

    async def _open_parent(self) -> None:
        agents = {node.agent.node_id: node.agent for node in self.nodes.values()}
        self.parent = Parent(
            self.settings, SqlStore(self.settings.database_url), self.blobs, self._groups, _Caches(agents), self._home
        )
        self.app = build_app(self.parent, audit=self.audit)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = uvicorn.Config(
            self.app,
            host="127.0.0.1",
            port=port,
            log_level="warning",
            timeout_keep_alive=int(KEEP_ALIVE_S),
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        self.url = f"http://127.0.0.1:{port}"
        # The client closes idle connections long before the server does: the server might do it as a request comes, and
        # both are in one process, which may stand still for some seconds.
        limits = httpx.Limits(keepalive_expiry=2)
        self.http = httpx.AsyncClient(base_url=self.url, timeout=60, limits=limits)
        self._parents.append((server, asyncio.create_task(server.serve()), self.http))
        await self.until(self._is_ready)

    async def kill_parent(self) -> None:
        """End the parent that came first as a crash would: clients that wait for an answer see the connection break."""
        parent = self._parents.pop(0)
        server = parent[0]
        for listener in server.servers:
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        await self._close_parent(parent)

    def waiting(self) -> int:
        """How many requests the parent that came first has under way."""
        return len(self._parents[0][0].server_state.tasks)

    @staticmethod
    async def _close_parent(parent: tuple[uvicorn.Server, asyncio.Task[None], httpx.AsyncClient]) -> None:
        server, serving, http = parent
        await http.aclose()
        server.should_exit = True
        await serving

    async def _open_group(self, group_id: str) -> None:
        await self.new_leader(group_id)

    async def new_leader(self, group_id: str, settings: GridSettings | None = None) -> Leader:
        """A fresh leader with the group's next term takes over; the one before is not notified.

        It begins with the grid's latest settings, or with those that its actor would have been made with.
        """
        before = self.leaders.get(group_id)
        if before is not None:
            await self.store.release_lease(before.leader._lease)
        lease = await self.store.acquire_lease(group_id, f"test-{before.leader._lease.term if before else 0}", 3600)
        assert lease is not None
        over = functools.partial(self.stale_terms.append, lease.term)
        leader = Leader(lease, settings or self.settings, self.store, _Nodes(self._members[group_id]), over)
        await leader.open()
        self.leaders[group_id] = DirectLeader(leader)
        self._groups.all[group_id] = self.leaders[group_id].link
        return leader

    def hide_leaders(self) -> None:
        """Let the parent find no group at all, as in the first moments of a grid."""
        self._groups.all = {}

    def show_leaders(self) -> None:
        """Let the parent find the groups again."""
        self._groups.all = {group_id: leader.link for group_id, leader in self.leaders.items()}

    async def purge(self, later: timedelta) -> int:
        """Run housekeeping as if it were that much later."""
        retention = timedelta(days=self.settings.storage.retention_days)
        housekeeping = Housekeeping(self.store, self.blobs, retention, 3600)
        return await housekeeping.purge(datetime.now(UTC) + later)

    def add_node(self, name: str, settings: GridSettings | None = None) -> DirectNode:
        """Start a node agent; it belongs to no group yet."""
        settings = settings or self.settings
        own = self._node_blobs.get(name)
        agent = NodeAgent(
            name,
            settings.grid_dir / "nodes" / name,
            dict(settings.pricers),
            settings.node,
            self.blobs if own is None else BlobStore(own, settings.storage.blob_options),
            address=name,
            deployed_at=settings.deployed_at,
        )
        agent.open()
        self.nodes[name] = self.node_class(agent)
        return self.nodes[name]

    async def restart_node(self, name: str, settings: GridSettings | None = None) -> None:
        """End a node's agent, with what it runs, and start another life of it, perhaps with older settings."""
        group_id = name.rpartition("-")[0]
        await asyncio.to_thread(self.nodes[name].agent.close)
        self._members[group_id][name] = self.add_node(name, settings).link

    async def _is_ready(self) -> bool:
        try:
            nodes = (await self.http.get("/nodes", headers=self.key)).json().get("nodes", [])
        except httpx.TransportError:
            return False
        return len(nodes) == self._racks * self._per_rack

    @property
    def key(self) -> dict[str, str]:
        """Headers that carry the first API key, if the grid requires one."""
        keys = self.settings.http.api_keys
        return {"Authorization": f"Bearer {keys[0].key.get_secret_value()}"} if keys else {}

    async def __aexit__(self, *_: object) -> None:
        for parent in self._parents:
            await self._close_parent(parent)
        for leader in self.leaders.values():
            await leader.leader.close()
        for node in self.nodes.values():
            await asyncio.to_thread(node.agent.close)
        await self.store.close()

    @staticmethod
    async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 60.0) -> None:
        """Wait for a condition; fail if it does not come."""
        deadline = asyncio.get_running_loop().time() + within_s
        for pause_s in pauses():
            if await condition():
                return
            assert asyncio.get_running_loop().time() < deadline, f"waited {within_s} s for {condition}"
            await asyncio.sleep(pause_s)

    async def submit(self, job_id: str, script: str, **options: Any) -> httpx.Response:
        """Submit a shell script as the input of the pricer `shell` (or another) and wait."""
        wait = options.pop("wait", 60)
        files = {"file": (options.pop("filename", "job.sh"), script.encode())}
        data = {"pricer": "shell", **options}
        return await self.http.post(
            f"/submit/{job_id}", params={"wait": wait}, files=files, data=data, headers=self.key
        )

    async def status(self, job_id: str) -> dict[str, Any]:
        """A job's status."""
        answer: dict[str, Any] = (await self.http.get(f"/status/{job_id}", headers=self.key)).json()
        return answer

    async def until_state(self, job_id: str, *states: str, within_s: float = 60.0) -> dict[str, Any]:
        """Wait until a job is in one of these states."""

        async def reached() -> bool:
            return (await self.status(job_id)).get("state") in states

        await self.until(reached, within_s)
        return await self.status(job_id)
