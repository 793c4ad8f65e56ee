"""Thaws frozen processes after some seconds, even if the process that froze them has ended.

Started by `machine_faults.py`.

It imports little beside the standard library, so that it is ready at once. It reads one line `SECONDS PID:START …` from
its standard input; without such a line it ends and does nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from raygrid.system.proc import start_time


def main() -> None:
    """Wait for the line, then for the time, then thaw."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    _say()
    words = sys.stdin.readline().split()
    if not words:
        return
    frozen = [tuple(map(int, word.split(":"))) for word in words[1:]]
    _say()
    time.sleep(float(words[0]))
    for pid, started in frozen:
        if start_time(pid) == started:
            try:
                os.kill(pid, signal.SIGCONT)
            except OSError:
                continue


def _say() -> None:
    sys.stdout.write("armed\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
