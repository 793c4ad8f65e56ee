"""Whether a node sees the blob store that the whole grid works with.

The grid agrees on one marker, which lies in the blob store. A node that sees another marker, or none, would read inputs
that are not there and leave results where nobody finds them.
"""

from __future__ import annotations

from raygrid.models import NodeState

UNDECIDED = ""  # what a leader goes by until the grid has agreed on a blob store: no marker is this one


def not_the_grids(expected: str, seen: str | None, where: str) -> str:
    """Why a blob store is not the grid's, and what to do about it."""
    if seen is None:
        cause = "check bucket, prefix and endpoint" if "://" in where else "is the share mounted there?"
        return f"there is no marker at {where} ({cause})"
    return (
        f"{where} is another blob store than the grid's (its marker is {seen}, not {expected}); "
        "let storage.blobs name the same one on every machine"
    )


def blob_store_trouble(agreed: str | None, state: NodeState) -> str | None:
    """Why a node must not get work for the sake of the blob store.

    Args:
        agreed: the grid's marker; None where nobody has said which, so that any will do.
        state: what the node says of itself.
    """
    if agreed is None or (state.marker == agreed and agreed != UNDECIDED):
        return None
    if agreed == UNDECIDED:
        return "the grid has not agreed on a blob store yet; a parent does that when it starts"
    return f"it does not see the grid's blob store: {not_the_grids(agreed, state.marker, state.blobs)}"
