"""The only place where one tier calls another: Ray actor handles behind the ports, and connections beside Ray.

An actor tells through Ray where its direct server is (`direct_server.py`). From then on calls take that shorter way,
and go through Ray again as soon as it breaks. Every call has a timeout, and Ray's errors become raygrid's here. Actors
are found by name; a caller that finds none makes it, and Ray's `get_if_exists` lets racing makers meet in one actor.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Generic, TypeVar

import ray
from ray.core.generated.gcs_pb2 import ActorTableData  # type: ignore[attr-defined]  # made at run time
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raygrid.core.group.events import AttemptOrder
from raygrid.errors import ProcessEndedError, RaygridError, UnavailableError, UnreachableError
from raygrid.models import AttemptId, Definition, JobSpec, QueuedJob
from raygrid.settings.model import GridSettings
from raygrid.transport.direct_client import BrokenError, Channel, open_channel
from raygrid.transport.ports import LeaderLink, LeaderReply, NodeLink, NodeReply
from raygrid.transport.wire import FrameTooLargeError

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 5.0
POKE_TIMEOUT_S = 2.0  # a lost one costs little, and others wait behind it
RESULTS_TIMEOUT_S = 2.0
POLL_SLACK_S = 2.5
KNOCK_AGAIN_S, LONGEST_PAUSE_S = 0.5, 30.0  # between tries to open a short way
GONE_WITHIN_S = 0.2  # Ray tells of the end of a process within some 20 ms, on an idle machine
LOOK_S = 0.1  # how often a call that waits looks whether the actor still lives
# More than half of a node's share of its rack: two candidates of one group never share a node.
CANDIDATE_SHARE = 0.51
CANDIDATES = 2
Answer = TypeVar("Answer")


def namespace(settings: GridSettings) -> str:
    """The Ray namespace of a grid's actors."""
    return f"raygrid-{settings.name}"


class ActorLink:
    """An actor behind a port; `is_dead` once Ray says that it will not come back by itself."""

    def __init__(self, what: str, actor: Any) -> None:
        self._what = what
        self.actor = actor
        self.is_dead = False
        self._channel: Channel | None = None
        self._opening: asyncio.Task[None] | None = None
        self._pause_s = KNOCK_AGAIN_S
        self._closed = False
        self._too_large: set[str] = set()  # methods whose answers have not fitted: they go through Ray

    async def _do(self, method: str, *args: Any, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Call a method of the actor, by the shortest way that is open."""
        channel = self._channel
        if channel is None or not channel.is_open:
            self._knock()
            channel = None
        try:
            answer = None if channel is None or method in self._too_large else channel.ask(method, args)
        except FrameTooLargeError:
            answer = None
        if channel is None or answer is None:
            return await self._ask(getattr(self.actor, method).remote(*args), timeout_s)
        try:
            return await self._ask(answer, timeout_s)
        except FrameTooLargeError as error:
            self._too_large.add(method)
            raise UnavailableError(f"{self._what}: its answer was too large, and is lost: {error}") from error
        except UnavailableError as error:
            if isinstance(error.__cause__, TimeoutError):
                channel.retire()  # should it be this way only that leads nowhere, the next call takes the other
            raise

    def _knock(self) -> None:
        """Begin to open the short way, unless that is under way."""
        if not self._closed and (self._opening is None or self._opening.done()):
            self._opening = asyncio.get_running_loop().create_task(self._open(), name=f"door of {self._what}")

    async def _open(self) -> None:
        try:
            address = await self._ask(self.actor.door.remote())
            if address is not None:
                self._channel = await open_channel(address)
                self._pause_s = KNOCK_AGAIN_S
                return
        except (RaygridError, OSError, TimeoutError) as error:
            logger.info("%s is called through Ray for now: %s", self._what, error)
        except Exception:
            logger.exception("%s is called through Ray for now", self._what)
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    def close(self) -> None:
        """Let go of the connection for good; calls go through Ray from now on."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        if self._channel is not None:
            self._channel.close()

    async def _ask(self, reference: Awaitable[Answer], timeout_s: float = CALL_TIMEOUT_S) -> Answer:
        try:
            return await _call(self._what, reference, timeout_s, self._is_gone)
        except UnavailableError as error:
            self.is_dead = self.is_dead or isinstance(error.__cause__, ActorDiedError)
            raise

    def _is_gone(self) -> bool:
        """Whether Ray says that the actor's process has ended.

        Ray tells that to whoever holds the actor within some 20 ms, but lets calls under way fail only 1 to 2.2 s
        later. The answer is kept in this process, so asking costs nothing.
        """
        state = self.actor._get_local_state()
        self.is_dead = self.is_dead or state == ActorTableData.DEAD
        return self.is_dead or state == ActorTableData.RESTARTING


async def _call(
    what: str, reference: Awaitable[Answer], timeout_s: float, is_gone: Callable[[], bool] = lambda: False
) -> Answer:
    """Await a call; its own errors come through, all else means that nobody knows."""
    call = asyncio.ensure_future(reference)
    try:
        async with asyncio.timeout(timeout_s):
            while not (await asyncio.wait((call,), timeout=LOOK_S))[0]:
                if is_gone():
                    raise ProcessEndedError(f"{what} failed: its process has ended")
        return call.result()
    except BrokenError as error:
        # As when Ray's own connection breaks; but Ray says a moment later only that a process has ended.
        until = asyncio.get_running_loop().time() + GONE_WITHIN_S
        while not is_gone() and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - Ray gives no event
            await asyncio.sleep(GONE_WITHIN_S / 20)
        if is_gone():
            raise ProcessEndedError(f"{what} failed: its process has ended") from error
        raise UnreachableError(f"{what} failed: {error}") from error
    except RayTaskError as error:
        if isinstance(error.cause, RaygridError):
            raise error.cause from None
        raise UnavailableError(f"{what} failed: {error.cause!r}") from error
    except ActorDiedError as error:
        raise ProcessEndedError(f"{what} failed: its actor is dead") from error
    except RayActorError as error:
        raise UnreachableError(f"{what} failed: {type(error).__name__}") from error
    except RayError as error:
        raise UnavailableError(f"{what} failed: {type(error).__name__}") from error
    except TimeoutError as error:
        raise UnavailableError(f"{what} did not answer within {timeout_s:g} s") from error
    finally:
        call.cancel()


class RayNodeLink(ActorLink):
    """A node agent actor."""

    async def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        """See `NodeLink.start`."""
        await self._do("start", term, orders, definitions)

    async def stop(self, term: int, attempts: Sequence[AttemptId]) -> None:
        """See `NodeLink.stop`."""
        await self._do("stop", term, attempts)

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        """See `NodeLink.reports`."""
        reply: NodeReply = await self._do("reports", term, after, settled, wait_s, timeout_s=wait_s + POLL_SLACK_S)
        return reply

    async def configure(self, term: int, settings: GridSettings) -> None:
        """See `NodeLink.configure`."""
        await self._do("configure", term, settings.for_nodes)


class RayLeaderLink(ActorLink):
    """A leader actor."""

    async def enqueue(self, jobs: Sequence[JobSpec | QueuedJob]) -> None:
        """See `LeaderLink.enqueue`."""
        await self._do("enqueue", jobs, timeout_s=POKE_TIMEOUT_S)

    async def forget(self, job_ids: Sequence[str]) -> None:
        """See `LeaderLink.forget`."""
        await self._do("forget", job_ids)

    async def cancel(self, job_ids: Sequence[str]) -> None:
        """See `LeaderLink.cancel`."""
        await self._do("cancel", job_ids)

    async def changes(self, epoch: str, after: int, wait_s: float) -> LeaderReply:
        """See `LeaderLink.changes`."""
        reply: LeaderReply = await self._do("changes", epoch, after, wait_s, timeout_s=wait_s + POLL_SLACK_S)
        return reply

    async def configure(self, settings: GridSettings) -> None:
        """See `LeaderLink.configure`."""
        await self._do("configure", settings.without_keys)

    async def hand_over(self) -> None:
        """See `LeaderLink.hand_over`."""
        await self._do("hand_over")

    async def stand(self) -> None:
        """See `LeaderLink.stand`."""
        await self._do("stand")


Link = TypeVar("Link", bound=ActorLink)


class RayResultCaches:
    """The result caches of node agents, found by the names that the leaders tell."""

    def __init__(self, settings: GridSettings) -> None:
        self._namespace = namespace(settings)
        self._actors: dict[str, Any] = {}

    async def results(self, address: str, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """See `ResultCaches.results`."""
        actor: Any = self._actors.get(address)
        try:
            if actor is None:
                actor = await _in_ray_thread(partial(ray.get_actor, address, self._namespace), RESULTS_TIMEOUT_S)
                self._actors[address] = actor
            return await _call(f"the cache of {address}", actor.results.remote(key, job_ids), RESULTS_TIMEOUT_S)
        except (UnavailableError, ValueError, RayError, TimeoutError):
            # It is only a cache: the blob store has everything.
            self._actors.pop(address, None)
            return [None] * len(job_ids)


def live_nodes() -> list[dict[str, Any]]:
    """Ray's view of the live nodes."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    return [node for node in nodes if node["Alive"]]


def node_names(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Ray node id by the node's name in the grid: its Ray name, told apart where two have the same."""
    names: dict[str, str] = {}
    for node in sorted(nodes, key=lambda node: str(node["NodeID"])):
        name = str(node["NodeName"]).replace(":", "_").replace("/", "_")
        if name in names:
            name = f"{name}-{node['NodeID'][:6]}"
        names[name] = node["NodeID"]
    return names


def groups_of(nodes: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """The groups: every custom resource with the prefix that a live node carries."""
    return sorted({name for node in nodes for name in node["Resources"] if name.startswith(prefix)})


def home_of(nodes: Sequence[Mapping[str, Any]], node_id: str, prefix: str) -> str | None:
    """The group whose resource a Ray node carries; None for a node outside all racks, or in several."""
    here = groups_of([node for node in nodes if node["NodeID"] == node_id], prefix)
    return here[0] if len(here) == 1 else None


def home(settings: GridSettings) -> str | None:
    """The group of the rack in which this process stands, if it stands in one."""
    return home_of(live_nodes(), ray.get_runtime_context().get_node_id(), settings.group_prefix)


class _Actors(Generic[Link]):
    """Actors by key, made when missing; a dead one is looked for (and made) again."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}

    async def get(self, key: str, find: Callable[[], Any], wrap: Callable[[Any], Link]) -> Link:
        link = self._links.get(key)
        if link is None or link.is_dead:
            actor = await _ask_ray(find)
            if link is not None:
                link.close()
            link = self._links[key] = wrap(actor)
        return link

    def keep_only(self, keys: set[str]) -> None:
        for key in self._links.keys() - keys:
            self._links.pop(key).close()


class RayNodes:
    """The nodes of a group: every live Ray node that carries its resource gets an agent."""

    def __init__(self, group_id: str, settings: GridSettings) -> None:
        self._group_id = group_id
        self._settings = settings
        self._actors: _Actors[RayNodeLink] = _Actors()

    def configure(self, settings: GridSettings) -> None:
        """Give these settings to agents that are made from now on."""
        self._settings = settings

    async def nodes(self) -> Mapping[str, NodeLink]:
        """See `NodeDirectory.nodes`."""
        alive = await _ask_ray(live_nodes)
        names = node_names(alive)
        carriers = {node["NodeID"] for node in alive if node["Resources"].get(self._group_id, 0) > 0}
        members = {name: node_id for name, node_id in names.items() if node_id in carriers}
        keys = {f"{name}@{node_id}" for name, node_id in members.items()}
        self._actors.keep_only(keys)
        return {
            name: await self._actors.get(
                f"{name}@{node_id}", partial(self._agent, name, node_id), partial(RayNodeLink, f"node {name}")
            )
            for name, node_id in members.items()
        }

    def close(self) -> None:
        """Let go of every connection."""
        self._actors.keep_only(set())

    def _agent(self, name: str, node_id: str) -> Any:
        from raygrid.node.actor import NodeAgentActor  # noqa: PLC0415 - only who makes agents needs their code

        address = f"agent:{name}:{node_id}"
        options = {
            "name": address,
            "namespace": namespace(self._settings),
            "get_if_exists": True,
            "lifetime": "detached",
            "max_restarts": -1,
            "max_task_retries": 0,
            "num_cpus": 0,
            "max_concurrency": 100,
            "enable_task_events": False,
            # An agent lives and dies with its Ray node; a node that comes back is a new one, with a new agent.
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
        }
        return ray.remote(NodeAgentActor).options(**options).remote(name, self._settings.for_nodes, address)


class RayGroups:
    """The groups of the grid: every custom resource with the configured prefix gets two candidates to lead it.

    They stand on different nodes of the rack, where it has two. One that was made stays as long as its Ray node lives,
    so that all parents soon follow the same ones, whatever they saw first.
    """

    def __init__(self, settings: GridSettings) -> None:
        self._settings = settings
        self._actors: _Actors[RayLeaderLink] = _Actors()

    def close(self) -> None:
        """Let go of every connection."""
        self._actors.keep_only(set())

    async def groups(self) -> Mapping[str, Sequence[LeaderLink]]:
        """See `GroupDirectory.groups`."""
        alive, known = await _ask_ray(live_nodes), await _ask_ray(partial(actor_names, namespace(self._settings)))
        addresses = {
            group_id: candidates_of(alive, group_id, known)
            for group_id in groups_of(alive, self._settings.group_prefix)
        }
        self._actors.keep_only({address for each in addresses.values() for address in each})
        return {
            group_id: [
                await self._actors.get(
                    address, partial(self._candidate, group_id, address), partial(RayLeaderLink, address)
                )
                for address in each
            ]
            for group_id, each in addresses.items()
        }

    def _candidate(self, group_id: str, address: str) -> Any:
        from raygrid.leader.actor import LeaderActor  # noqa: PLC0415 - only who makes leaders needs their code

        options = {
            "name": address,
            "namespace": namespace(self._settings),
            "get_if_exists": True,
            "lifetime": "detached",
            "max_restarts": -1,
            "max_task_retries": 0,
            "num_cpus": 0,
            "resources": {group_id: CANDIDATE_SHARE},
            "max_concurrency": 1_000,
            "enable_task_events": False,
            # A candidate lives and dies with its Ray node; the rack's other one takes over.
            "scheduling_strategy": NodeAffinitySchedulingStrategy(address.rpartition(":")[2], soft=False),
        }
        return ray.remote(LeaderActor).options(**options).remote(group_id, self._settings.without_keys, address)


def actor_names(namespace: str) -> set[str]:
    """Names of all actors of a namespace."""
    found = ray.util.list_named_actors(all_namespaces=True)
    return {each["name"] for each in found if each["namespace"] == namespace}


def candidates_of(nodes: Sequence[Mapping[str, Any]], group_id: str, known: Collection[str]) -> list[str]:
    """Addresses of a group's candidates: those that are there on live nodes, and as many more as make two.

    Where a Ray node carries more than one group, its share of each is its own.
    """
    carriers = {node["NodeID"] for node in nodes if node["Resources"].get(group_id, 0) > 0}
    in_order = [node_id for _, node_id in sorted(node_names(nodes).items()) if node_id in carriers]
    addresses = [f"leader:{group_id}:{node_id}" for node_id in in_order]
    there = [address for address in addresses if address in known]
    missing = [address for address in addresses if address not in known]
    return sorted(there + missing[: max(0, CANDIDATES - len(there))])


# Questions to Ray's books block, and while the head is cut off they block for minutes. They have threads of their own,
# so that they take none from anything else, and one that is given up before its turn is never asked.
_RAY_THREADS = ThreadPoolExecutor(4, thread_name_prefix="raygrid-ray")


async def _in_ray_thread(question: Callable[[], Answer], timeout_s: float = CALL_TIMEOUT_S) -> Answer:
    async with asyncio.timeout(timeout_s):
        return await asyncio.get_running_loop().run_in_executor(_RAY_THREADS, question)


async def _ask_ray(question: Callable[[], Answer]) -> Answer:
    try:
        return await _in_ray_thread(question)
    except (RayError, TimeoutError, ConnectionError) as error:
        raise UnavailableError(f"the Ray cluster did not answer: {error!r}") from error


def node_address() -> str:
    """The address of this process's Ray node: what its actors listen on."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # Ray leaves it untyped


def machines() -> int:
    """How many machines the cluster has: nodes of one machine share an address."""
    return len({node["NodeManagerAddress"] for node in live_nodes()})
