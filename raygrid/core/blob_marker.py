"""Checks that a node uses the same blob store as the rest of the grid.

The grid agrees on one marker, an object in the blob store. A node that reads another marker, or none, would miss
inputs and would write results where no parent can read them.
"""

from __future__ import annotations

from raygrid.models import NodeState

UNDECIDED = ""  # a leader's marker until the grid has agreed on a blob store; no real marker is empty


def wrong_blob_store_message(expected: str, seen: str | None, where: str) -> str:
    """Explain why a blob store is not the grid's, and what to do."""
    if seen is None:
        cause = "check bucket, prefix and endpoint" if "://" in where else "is the share mounted there?"
        return f"there is no marker at {where} ({cause})"
    return (
        f"{where} is another blob store, not the grid's (its marker is {seen}, not {expected}); "
        "set storage.blobs to the same place on every machine"
    )


def blob_store_trouble(agreed: str | None, state: NodeState) -> str | None:
    """Explain why a node must not get work because of its blob store; None if it may.

    Args:
        agreed: the grid's marker; None accepts any marker.
        state: the node's latest report.
    """
    if agreed is None or (state.marker == agreed and agreed != UNDECIDED):
        return None
    if agreed == UNDECIDED:
        return "the grid has not agreed on a blob store yet; the next parent that starts sets it"
    return f"the node does not see the grid's blob store: {wrong_blob_store_message(agreed, state.marker, state.blobs)}"
