"""The job of the Python contenders: spawn the command, wait, return the exit code."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence


def spawn(command: Sequence[str], payload: bytes) -> int:
    """Run the command without its input, and drop its output."""
    return subprocess.call(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def require_all_well(codes: Sequence[int], jobs: int) -> None:
    """Raise an error unless all jobs ended with exit code 0."""
    if len(codes) != jobs or any(codes):
        raise RuntimeError(f"of {jobs} jobs {len(codes)} ended, and {sum(map(bool, codes))} failed")
