"""The groups of a grid on Ray: each custom resource with the configured prefix gets two leader candidates.

They run on different nodes of the rack, if it has two. A candidate stays until its Ray node ends, so all parents soon
use the same candidates, even if they saw the nodes in a different order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from raygrid.settings.model import GridSettings
from raygrid.transport.actors import ActorClasses, ActorLinks, actor_names, ask_ray, make_actor, namespace
from raygrid.transport.ports import LeaderCalls
from raygrid.transport.racks import carriers_of, groups_of, live_nodes

# Of the group's resource on a node, which is 1: with more than half, two candidates of a group never share a node.
CANDIDATE_SHARE = 0.51
CANDIDATES = 2
MAX_CONCURRENCY = 1_000


class RayGroups:
    """Finds the groups, and creates their candidates with these settings and actor classes."""

    def __init__(self, settings: GridSettings, actors: ActorClasses) -> None:
        self._settings = settings
        self._actors = actors
        self._links: ActorLinks[LeaderCalls] = ActorLinks(LeaderCalls)

    async def groups(self) -> Mapping[str, Sequence[LeaderCalls]]:
        """See `GroupDiscovery.groups`."""
        alive, known = await ask_ray(live_nodes), await ask_ray(partial(actor_names, namespace(self._settings)))
        addresses = {
            group_id: candidates_of(alive, group_id, known)
            for group_id in groups_of(alive, self._settings.group_prefix)
        }
        self._links.keep_only({address for each in addresses.values() for address in each})
        return {
            group_id: [
                await self._links.get(address, partial(self._candidate, group_id, address), address) for address in each
            ]
            for group_id, each in addresses.items()
        }

    def close(self) -> None:
        """Close every connection."""
        self._links.close()

    def _candidate(self, group_id: str, address: str) -> Any:
        return make_actor(
            self._actors.leader,
            group_id,
            self._settings.without_keys,
            address,
            self._actors.agent,
            name=address,
            namespace=namespace(self._settings),
            node_id=address.rpartition(":")[2],
            max_concurrency=MAX_CONCURRENCY,
            resources={group_id: CANDIDATE_SHARE},
        )


def candidates_of(nodes: Sequence[Mapping[str, Any]], group_id: str, known: Collection[str]) -> list[str]:
    """Addresses of a group's candidates: those that exist on live nodes, and new ones until there are two."""
    addresses = [f"leader:{group_id}:{node_id}" for _, node_id in sorted(carriers_of(nodes, group_id).items())]
    existing = [address for address in addresses if address in known]
    missing = [address for address in addresses if address not in known]
    return sorted(existing + missing[: max(0, CANDIDATES - len(existing))])
