"""The nodes of a group on Ray: each live Ray node that has the group's resource gets a node agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from raygrid.errors import UnavailableError
from raygrid.settings.model import GridSettings
from raygrid.transport.actors import ActorLinks, ask_ray, find_actor, make_actor, namespace
from raygrid.transport.ports import RESULTS_TIMEOUT_S, CacheCalls, NodeCalls
from raygrid.transport.racks import carriers_of, live_nodes

MAX_CONCURRENCY = 100


class RayNodes:
    """Finds the nodes of a group, and creates their agents with these settings; `agent_class` as of `ActorClasses`."""

    def __init__(self, group_id: str, settings: GridSettings, agent_class: type[Any]) -> None:
        self._group_id = group_id
        self._settings = settings
        self._agent_class = agent_class
        self._links: ActorLinks[NodeCalls] = ActorLinks(NodeCalls)

    def configure(self, settings: GridSettings) -> None:
        """Create agents with these settings from now on."""
        self._settings = settings

    async def nodes(self) -> Mapping[str, NodeCalls]:
        """See `NodeDiscovery.nodes`."""
        members = carriers_of(await ask_ray(live_nodes), self._group_id)
        addresses = {name: f"agent:{name}:{node_id}" for name, node_id in members.items()}
        self._links.keep_only(set(addresses.values()))
        return {
            name: await self._links.get(
                addresses[name], partial(self._agent, name, node_id, addresses[name]), f"node {name}"
            )
            for name, node_id in members.items()
        }

    def close(self) -> None:
        """Close every connection."""
        self._links.close()

    def _agent(self, name: str, node_id: str, address: str) -> Any:
        return make_actor(
            self._agent_class,
            name,
            self._settings.for_nodes,
            address,
            name=address,
            namespace=namespace(self._settings),
            node_id=node_id,
            max_concurrency=MAX_CONCURRENCY,
        )


class RayResultCaches:
    """Reads the result caches of node agents, by the addresses that leaders report."""

    def __init__(self, settings: GridSettings) -> None:
        self._namespace = namespace(settings)
        self._links: ActorLinks[CacheCalls] = ActorLinks(CacheCalls)

    async def results(self, address: str, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """See `ResultCaches.results`."""
        try:
            find = partial(find_actor, address, self._namespace)
            cache = await self._links.get(address, find, f"the cache of {address}", RESULTS_TIMEOUT_S)
            return await cache.results(key, job_ids)
        except (UnavailableError, ValueError):
            # Not an error: the blob store has every result, and the cache is only faster.
            self._links.drop(address)
            return [None] * len(job_ids)
