"""Reads Ray's nodes as racks of a grid: which are alive, their names, and which group's resource each has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray

from raygrid.settings.model import GridSettings


def live_nodes() -> list[dict[str, Any]]:
    """Ray's view of the live nodes."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    return [node for node in nodes if node["Alive"]]


def node_names(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Ray node id by the node's name in the grid: its Ray name, with a suffix if two nodes have the same name."""
    names: dict[str, str] = {}
    for node in sorted(nodes, key=lambda node: str(node["NodeID"])):
        name = str(node["NodeName"]).replace(":", "_").replace("/", "_")
        if name in names:
            name = f"{name}-{node['NodeID'][:6]}"
        names[name] = node["NodeID"]
    return names


def carriers_of(nodes: Sequence[Mapping[str, Any]], group_id: str) -> dict[str, str]:
    """Ray node id by name, of the nodes that have a group's resource."""
    carriers = {node["NodeID"] for node in nodes if node["Resources"].get(group_id, 0) > 0}
    return {name: node_id for name, node_id in node_names(nodes).items() if node_id in carriers}


def groups_of(nodes: Sequence[Mapping[str, Any]], prefix: str) -> list[str]:
    """The groups: every custom resource of a live node with the prefix."""
    return sorted({name for node in nodes for name in node["Resources"] if name.startswith(prefix)})


def home_of(nodes: Sequence[Mapping[str, Any]], node_id: str, prefix: str) -> str | None:
    """The group whose resource a Ray node has; None for a node in no rack or in several."""
    here = groups_of([node for node in nodes if node["NodeID"] == node_id], prefix)
    return here[0] if len(here) == 1 else None


def home(settings: GridSettings) -> str | None:
    """The group of the rack in which this process runs; None if it runs in no rack."""
    return home_of(live_nodes(), ray.get_runtime_context().get_node_id(), settings.group_prefix)


def machines(nodes: Sequence[Mapping[str, Any]]) -> int:
    """The number of machines; Ray nodes of one machine share an address."""
    return len({node["NodeManagerAddress"] for node in nodes})
