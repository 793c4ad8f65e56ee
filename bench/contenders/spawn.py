"""The job as the Python contenders run it in their workers: spawn the command, wait, give the exit code."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def spawn(command: Sequence[str], payload: bytes) -> int:
    """Run the command; its input is not given to it, and what it prints is not kept."""
    return subprocess.call(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def require_all_well(codes: Sequence[int], jobs: int) -> None:
    """Refuse to time a run in which something went wrong."""
    if len(codes) != jobs or any(codes):
        raise RuntimeError(f"of {jobs} jobs {len(codes)} came back, and {sum(map(bool, codes))} had failed")
