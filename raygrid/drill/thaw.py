"""Thaws frozen processes after some seconds, even if the process that froze them has ended.

`machine_faults.py` starts it as a script. It imports little beyond the standard library, so that it starts fast. It
reads one line `SECONDS PID:START …` from its standard input; without such a line it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

from raygrid.system.proc import Life


def thaw(frozen: Iterable[Life]) -> None:
    """Let processes continue, unless they have ended."""
    for process in frozen:
        if not process.is_over:
            with contextlib.suppress(OSError):
                os.kill(process.pid, signal.SIGCONT)


def main() -> None:
    """Read the line, wait for that time, then thaw."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    print("armed", flush=True)
    words = sys.stdin.readline().split()
    if not words:
        return
    frozen = [Life(*map(int, word.split(":"))) for word in words[1:]]
    print("armed", flush=True)
    time.sleep(float(words[0]))
    thaw(frozen)


if __name__ == "__main__":
    main()
