"""Lets frozen processes go on after some seconds, even if whoever froze them is gone. Run as a script by `hand.py`.

Needs the standard library only, so that it is ready at once: one line `SECONDS PID:START …` comes in; nothing, and it
ends without having done anything.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path


def _started(pid: int) -> int | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(fields[19])


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
        if _started(pid) == started:
            try:
                os.kill(pid, signal.SIGCONT)
            except OSError:
                continue


def _say() -> None:
    sys.stdout.write("armed\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
