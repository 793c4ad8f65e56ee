"""Which copy of a result a parent reads: the hot one in its node's cache, or the one in the blob store.

Both are the same bytes; this is about the racks' uplinks. A read from the cache of a node in the parent's own rack
crosses no uplink, and is never worse. Elsewhere it crosses the node's uplink, over which the result already went once
into the blob store, while a read from the blob store spares that one and never crosses more. But a cache gives all
results of a pack in one quick call, and an object store wants a request for each: that is worth more than the bytes
of small ones.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

# Below this a request to an object store costs more than the bytes on an uplink.
WORTH_A_REQUEST = 256 * 1024
# So many reads of a file of this machine cost less than a call to a node.
FEW = 4


class NodePlace(NamedTuple):
    """Where a node stands, and where its cached results are reached."""

    group_id: str
    address: str


class Source(Enum):
    """Where to look first; the other copy is the fallback."""

    CACHE = "cache"
    BLOBS = "blobs"


def choose_source(
    home: str | None, node: NodePlace | None, size: int, count: int, *, blobs_are_here: bool = False
) -> Source:
    """Where a parent looks first for results of one node that lie in one pack.

    Args:
        home: the group of the parent's rack; None where it stands in none, or nobody knows.
        node: where the node is; None if it is gone.
        size: bytes of the wanted results together.
        count: how many they are.
        blobs_are_here: whether the blob store is a directory of the one machine that the grid has.
    """
    if node is None or not node.address:
        return Source.BLOBS
    if blobs_are_here and count <= FEW:
        return Source.BLOBS
    if node.group_id == home:
        return Source.CACHE
    return Source.BLOBS if size >= WORTH_A_REQUEST * count else Source.CACHE
