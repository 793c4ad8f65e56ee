"""A small process that kills its owner, a larger process, when that is frozen; Ray then restarts the owner.

The owner (`heartbeat.py`) writes a byte a second into a pipe, the guard's standard input. When the pipe closes, the
owner has ended, and the guard ends. It is run as a script, `python guard.py OWNER_PID LIMIT_S`, and imports only the
standard library, because one guard runs beside every leader. The reaper of a node agent is also its guard.
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
    """Wait until the owner has ended; kill it if it writes nothing for the limit.

    The silence is counted in steps of this process's own run time. If both processes freeze (a suspended machine, a
    frozen container), that counts as one step at most; on an overloaded machine the steps get longer.

    Args:
        owner: this process's parent.
        limit_s: how long the owner may be silent; infinite to only wait for its end.
        heartbeat: the file descriptor to read.
        heard: called with the data that the owner writes.
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
    while os.getppid() == owner and time.monotonic() < until:  # the pid of a living parent cannot be reused
        os.kill(owner, signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    watch(int(sys.argv[1]), float(sys.argv[2]))
