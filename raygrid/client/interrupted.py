"""The message after an interrupted `raygrid.map`: its jobs go on; how to cancel them and how to fetch their results."""

from __future__ import annotations


def message(
    batch_id: str, url: str | None, *, left: bool = False, needs_key: bool = False, ends_with_process: bool = False
) -> str:
    """Make the message; its lines of code can be run unchanged.

    Args:
        batch_id: the batch.
        url: the grid's URL; None if the grid is found without it.
        left: whether the caller stopped iterating, rather than being interrupted while the map waited.
        needs_key: whether RAYGRID_API_KEY must be set first.
        ends_with_process: whether this process started the grid, which then ends with the process.
    """
    grid = "raygrid.connect()" if url is None else f"raygrid.connect({url!r})"
    command = "raygrid" if url is None else f"raygrid --url {url}"
    what = "left before its last result" if left else "interrupted"
    lines = [
        f"raygrid.map was {what}. The jobs of batch {batch_id} that have not ended go on.",
        "  in Python, to go through their results:",
        f"    for result in {grid}.batch({batch_id!r}).results(): print(result)",
        "  in Python, to cancel them:",
        f"    {grid}.cancel_batch({batch_id!r})",
        "  in a shell:",
        f"    {command} result --batch {batch_id} -o results --wait 60",
        f"    {command} cancel --batch {batch_id}",
    ]
    if needs_key:
        lines.append("  The grid requires its API key: set the environment variable RAYGRID_API_KEY first.")
    if ends_with_process:
        lines.append(
            "  This process started the grid: it stops with the process, and its jobs go on once it runs again."
        )
    return "\n".join(lines)
