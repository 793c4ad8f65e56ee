"""Finds or creates Ray actors by name, and keeps the links to them.

With Ray's `get_if_exists`, concurrent creators of an actor get the same one. `ActorClasses` passes the actor classes of
the tiers to the code that creates actors, so no tier imports another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raygrid.errors import UnavailableError
from raygrid.settings.model import GridSettings
from raygrid.transport.actor_link import ActorLink
from raygrid.transport.calls import Calls
from raygrid.transport.ports import CALL_TIMEOUT_S

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class ActorClasses:
    """The classes of a grid's actors.

    Attributes:
        leader: its arguments are the group, the settings, the actor's name and the agent's class.
        agent: its arguments are the node's name, the settings and the actor's name.
    """

    leader: type[Any]
    agent: type[Any]


def namespace(settings: GridSettings) -> str:
    """The Ray namespace of a grid's actors."""
    return f"raygrid-{settings.name}"


def actor_names(namespace: str) -> set[str]:
    """The names of all actors of a namespace."""
    found = ray.util.list_named_actors(all_namespaces=True)
    return {each["name"] for each in found if each["namespace"] == namespace}


def find_actor(name: str, namespace: str) -> Any:
    """The handle of an actor.

    Raises:
        ValueError: there is none.
    """
    return ray.get_actor(name, namespace)


def make_actor(
    actor_class: type[Any],
    *arguments: Any,
    name: str,
    namespace: str,
    node_id: str,
    max_concurrency: int,
    resources: Mapping[str, float] | None = None,
) -> Any:
    """The handle of the actor with this name, which is created if there is none.

    It stays on its Ray node, is restarted there after a crash, and ends with the node. A machine that rejoins is a new
    Ray node, with a new actor. `arguments` are those of the class; `resources` are the node's custom ones that it uses.
    """
    options = {
        "name": name,
        "namespace": namespace,
        "get_if_exists": True,
        "lifetime": "detached",
        "max_restarts": -1,
        "max_task_retries": 0,
        "num_cpus": 0,
        "resources": dict(resources or {}),
        "max_concurrency": max_concurrency,
        "enable_task_events": False,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
    }
    return ray.remote(actor_class).options(**options).remote(*arguments)


class ActorLinks(Generic[Calls]):
    """Links to actors by name. When an actor is dead, the next `get` of its link finds or creates it again."""

    def __init__(self, protocol: Callable[..., Calls]) -> None:
        self._protocol = protocol
        self._links: dict[str, ActorLink[Calls]] = {}

    async def get(self, name: str, find: Callable[[], Any], what: str, timeout_s: float = CALL_TIMEOUT_S) -> Calls:
        """The calls of an actor, whose name in errors and logs is `what`; `find` returns its handle, in a thread.

        Raises:
            UnavailableError: Ray did not answer.
        """
        link = self._links.get(name)
        if link is None or link.is_dead:
            actor = await ask_ray(find, timeout_s)
            if link is not None:
                link.close()
            link = self._links[name] = ActorLink(self._protocol, what, actor)
        return link.calls

    def keep_only(self, names: set[str]) -> None:
        """Close all other links."""
        for name in self._links.keys() - names:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Close a link, if there is one; the next `get` finds the actor again."""
        if (link := self._links.pop(name, None)) is not None:
            link.close()

    def close(self) -> None:
        """Close all links."""
        self.keep_only(set())


# A request to Ray's head blocks its thread, for minutes if the head cannot be reached. These threads serve nothing
# else, and a request that timed out in their queue is not sent.
_RAY_THREADS = ThreadPoolExecutor(4, thread_name_prefix="raygrid-ray")


async def ask_ray(question: Callable[[], Answer], timeout_s: float = CALL_TIMEOUT_S) -> Answer:
    """Run a blocking request to Ray's head in a thread.

    Raises:
        UnavailableError: it did not answer in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.get_running_loop().run_in_executor(_RAY_THREADS, question)
    except (RayError, TimeoutError, ConnectionError) as error:
        raise UnavailableError(f"the Ray cluster did not answer: {error!r}") from error


def node_address() -> str:
    """The address of this process's Ray node, on which its actors listen."""
    return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]  # Ray leaves it untyped
