"""Where attempts run: what is left of them on disk."""

from __future__ import annotations

from pathlib import Path

from raygrid.node.attempt.workspace import SANDBOXES, TEMPORARY


def job_directories(nodes: Path) -> list[Path]:
    """The job directories of all nodes whose directories are in `nodes`, with and without a sandbox."""
    in_sandboxes = (path for path in nodes.glob(f"*/{SANDBOXES}/*/*/*") if path.name != TEMPORARY)
    return [path for path in (*nodes.glob("*/jobs/*/*"), *in_sandboxes) if path.is_dir()]
