"""Why a pricer was killed by the kernel or by the agent that decides for the machine.

The pricer's own agent sees only that it died of SIGKILL. The deciding agent writes the reason into a small file in the
directory of the pricer's agent before it kills. The kernel counts the processes that it killed for lack of memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from raygrid.system.proc import kernel_kills

NAME = "killed"
LATELY_S = 3.0
_INCARNATION = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class KillReason:
    """Why a pricer was killed, and whether other pricers ran on the machine."""

    message: str
    crowded: bool


class KillReasons:
    """The kill reasons of one agent's pricers, in the node's directory `root`, for this life of its agent."""

    def __init__(self, root: Path, incarnation: str) -> None:
        self._directory = root / NAME / incarnation
        self._kernel: deque[tuple[float, int]] = deque([(time.monotonic(), kernel_kills())])

    def open(self) -> None:
        """Make the directory for kill reasons, and remove those of earlier lives."""
        self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the mode is that of the last part only
        self._directory.mkdir(mode=0o700, exist_ok=True)
        for earlier in self._directory.parent.iterdir():
            if earlier != self._directory:
                with contextlib.suppress(OSError):
                    for file in earlier.iterdir():
                        file.unlink()
                    earlier.rmdir()

    def look_at_kernel(self) -> None:
        """Note how many processes the kernel has killed; called about once a second."""
        now = time.monotonic()
        self._kernel.append((now, kernel_kills()))
        while len(self._kernel) > 1 and self._kernel[1][0] <= now - LATELY_S:
            self._kernel.popleft()

    def of(self, pid: int, started: float) -> KillReason | None:
        """Why another agent killed a pricer that was `started` then (monotonic seconds); None if none did."""
        path = self._directory / str(pid)
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            content = json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
            if float(content["at"]) >= started:
                return KillReason(str(content["message"]), bool(content["crowded"]))
        return None

    def kernel_killed_lately(self) -> bool:
        """Whether the kernel killed a process of the machine for lack of memory within the last seconds."""
        return kernel_kills() > self._kernel[0][1]


def leave_kill_reason(nodes: str, mark: str, pid: int, reason: KillReason) -> bool:
    """Write the kill reason of a pricer's process for another agent of the same grid; False if that fails.

    The pricer's mark names its agent, which has its directory in `nodes`.
    """
    root, incarnation, *_ = [*mark.rsplit("|", 3), "", ""]
    # A pricer can forge the mark of its children: the mark must not decide where a file is written or overwritten.
    if (
        os.path.dirname(root) != nodes
        or os.path.basename(root) in (".", "..")
        or not _INCARNATION.fullmatch(incarnation)
    ):
        return False
    content = {"at": time.monotonic(), "message": reason.message, "crowded": reason.crowded}
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    path = f"{root}/{NAME}/{incarnation}/{pid}"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        file = os.open(path, flags, 0o600)
    except OSError:
        return False
    with os.fdopen(file, "w", encoding="utf-8") as opened:
        json.dump(content, opened)
    return True
