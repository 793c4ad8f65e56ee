"""What is printed when `raygrid.map` is interrupted: its jobs go on; how to cancel them, how to come back to them."""

from __future__ import annotations

import sys


def message(
    batch_id: str, url: str | None, *, left: bool = False, needs_key: bool = False, ends_with_process: bool = False
) -> str:
    """The text for a person at a prompt or in a notebook; its lines of code work as they stand.

    Args:
        batch_id: the batch.
        url: how the grid has to be named, where it is not found without.
        left: whether the caller went away between two results, rather than while the map waited for one.
        needs_key: whether the API key has to be in RAYGRID_API_KEY first.
        ends_with_process: whether this process started the grid, which then ends with it.
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
        lines.append("  The grid wants its API key: put it into the environment variable RAYGRID_API_KEY first.")
    if ends_with_process:
        lines.append(
            "  This process started the grid: it stops with the process, and its jobs go on once it runs again."
        )
    return "\n".join(lines)


def tell(text: str) -> None:
    """Print to stderr, which notebooks show, too."""
    if sys.stderr is not None:  # as it is while the interpreter ends, and in programs without a console
        print(text, file=sys.stderr, flush=True)
