"""Which copy of a result a parent reads first."""

from __future__ import annotations

import pytest

from raygrid.core.result_sources import FEW, WORTH_A_REQUEST, NodePlace, Source, choose_source

NODE = NodePlace("rack-a", "agent:a1")
BIG = WORTH_A_REQUEST


@pytest.mark.parametrize(
    ("home", "size", "count", "expected"),
    [
        ("rack-a", 1, 1, Source.CACHE),
        ("rack-a", 100 * BIG, 1, Source.CACHE),  # crosses no uplink at all
        ("rack-b", BIG, 1, Source.BLOBS),  # once over the node's uplink was enough
        (None, BIG, 1, Source.BLOBS),
        ("rack-b", BIG - 1, 1, Source.CACHE),
        ("rack-b", 2 * BIG, 3, Source.CACHE),  # many small ones of a pack: one call in place of three requests
        ("rack-b", 3 * BIG, 3, Source.BLOBS),
    ],
)
def test_large_results_cross_a_racks_uplink_once(home: str | None, size: int, count: int, expected: Source) -> None:
    """From the own rack's cache always; from another's only what is too small for a request to the blob store."""
    assert choose_source(home, NODE, size, count) is expected


@pytest.mark.parametrize("node", [None, NodePlace("rack-a", "")])
def test_without_a_cache_there_is_the_blob_store(node: NodePlace | None) -> None:
    """A node that is gone, or has no cache to reach, leaves one copy."""
    assert choose_source("rack-a", node, 1, 1) is Source.BLOBS


@pytest.mark.parametrize(("count", "expected"), [(1, Source.BLOBS), (FEW, Source.BLOBS), (FEW + 1, Source.CACHE)])
def test_a_few_results_on_one_machine_are_read_from_their_files(count: int, expected: Source) -> None:
    """A call to a node costs more than a few reads of local files, and less than many."""
    assert choose_source("rack-a", NODE, count, count, blobs_are_here=True) is expected
