"""A small process beside a bigger one, its owner: it kills an owner that is frozen, so that Ray starts it anew.

The owner (`heartbeat.py`) writes a byte a second into a pipe, the guard's standard input. Its end means that the owner
is gone, and the guard goes too. Run as a script, `python guard.py <pid of the owner> <limit in seconds>`; nothing but
the standard library is imported, for one of these runs beside every leader. The reaper of a node agent guards it, too.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable

STEP_S = 1.0
DIES_S = 5.0


def watch(owner: int, limit_s: float, heartbeat: int = 0, heard: Callable[[bytes], object] | None = None) -> None:
    """Wait until the owner is gone; kill it once it has been silent for the limit.

    Silence is counted in steps that this process has lived through itself. So a freeze of both (a suspended machine, a
    frozen container) counts for one step at most, and a machine too busy to run either only makes the steps longer.

    Args:
        owner: this process's parent.
        limit_s: the silence that is taken for a freeze; infinite to only wait for the owner's end.
        heartbeat: the file descriptor that the owner writes to.
        heard: is given what the owner writes.
    """
    silent_s = 0.0
    while True:
        if select.select([heartbeat], [], [], STEP_S)[0]:
            if not (data := os.read(heartbeat, 65_536)):
                return
            if heard is not None:
                heard(data)
            silent_s = 0.0
            continue
        silent_s += STEP_S
        if silent_s >= limit_s:
            break
    until = time.monotonic() + DIES_S
    while os.getppid() == owner and time.monotonic() < until:  # while it is the parent, its pid is its own
        os.kill(owner, signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]))
