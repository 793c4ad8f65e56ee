"""Chooses which copy of a result a parent reads: the one in its node's cache, or the one in the blob store.

Both copies have the same bytes; the choice is about the load on the racks' uplinks. Reading from the cache of a node in
the parent's own rack crosses no uplink. Reading from a cache in another rack crosses that rack's uplink, which the
result already crossed once on its way into the blob store; reading from the blob store spares it. But a cache returns
all results of a pack in one call, while an object store needs one request per result, and for small results the
requests cost more than the bytes.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

WORTH_A_REQUEST = 256 * 1024  # a smaller read costs less on the uplink than a request to an object store
FEW = 4  # this many reads of a local file cost less than one call to a node


class NodePlace(NamedTuple):
    """The group of a node, and the address of its result cache."""

    group_id: str
    address: str


class Source(Enum):
    """The copy to read first; the other one is the fallback."""

    CACHE = "cache"
    BLOBS = "blobs"


def choose_source(
    home: str | None, node: NodePlace | None, size: int, count: int, *, blobs_are_here: bool = False
) -> Source:
    """Choose the first place to read results of one node that lie in one pack.

    Args:
        home: the group of the parent's rack; None if it is in none or unknown.
        node: the place of the node; None if the node is gone.
        size: total bytes of the wanted results.
        count: number of the wanted results.
        blobs_are_here: whether the grid runs on one machine, with a local directory as blob store.
    """
    if node is None or not node.address:
        return Source.BLOBS
    if blobs_are_here and count <= FEW:
        return Source.BLOBS
    if node.group_id == home:
        return Source.CACHE
    return Source.BLOBS if size >= WORTH_A_REQUEST * count else Source.CACHE
