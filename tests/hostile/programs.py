"""Hostile pricers for one run beside good jobs; `python -m tests.hostile.programs INPUT`, an input being a name.

All are bounded: in number, in size, and in the time for which they live if they are not ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.hostile.isolation import require_isolation

MB = 1024**2
MOST_PROCESSES = 400
LIFE_S = 60.0  # of what outlives its job
STAY_S = 3.0
TITLE = "hostile-daemon"  # in the command line of each daemon


def kill_all() -> None:
    """Kill every process that it may signal, but itself."""
    os.kill(-1, signal.SIGKILL)


def fork_bomb() -> None:
    """Start processes that start processes, 400 in all, and wait with them."""
    _double(MOST_PROCESSES - 1)
    time.sleep(STAY_S)


def _double(left: int) -> None:
    """Have `left` further processes below this one, in a tree."""
    while left > 0:
        share = (left - 1) // 2
        try:
            child = os.fork()
        except BlockingIOError:  # the limit of processes
            return
        if child == 0:
            _double(share)
            time.sleep(STAY_S)
            os._exit(0)
        left -= share + 1


def daemon() -> None:
    """Leave a daemon in a session of its own, which keeps the environment."""
    _daemon(dict(os.environ))


def daemon_with_forged_mark() -> None:
    """Leave a daemon that claims to belong to another attempt."""
    _daemon({**os.environ, "RAYGRID_ATTEMPT": "x"})


def daemon_without_mark() -> None:
    """Leave a daemon with an empty environment."""
    _daemon({})


def daemon_that_forks() -> None:
    """Leave a daemon that is another process each half millisecond."""
    if os.fork() == 0:
        os.setsid()
        until = time.monotonic() + LIFE_S
        while time.monotonic() < until:
            if os.fork() != 0:
                os._exit(0)
            time.sleep(0.0005)
        os._exit(0)
    time.sleep(0.2)


def memory_in_another_session() -> None:
    """Take 600 MB in a daemon, and wait for it."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            kept = bytearray(600 * MB)
            for place in range(0, len(kept), 4096):
                kept[place] = 1
            time.sleep(LIFE_S)
        os._exit(0)
    time.sleep(STAY_S * 5)


def shared_memory_filler() -> None:
    """Leave 300 MB in /dev/shm."""
    with open("/dev/shm/hostile-filler", "wb", buffering=0) as file:
        for _ in range(300):
            file.write(bytes(MB))


def _daemon(environment: Mapping[str, str]) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(nothing, number)
            os.execve("/bin/sleep", [TITLE, str(LIFE_S)], environment)  # noqa: S606 - no shell is wanted
        os._exit(0)
    time.sleep(0.2)


PROGRAMS: dict[str, Callable[[], None]] = {
    "kill-all": kill_all,
    "fork-bomb": fork_bomb,
    "daemon": daemon,
    "daemon-with-forged-mark": daemon_with_forged_mark,
    "daemon-without-mark": daemon_without_mark,
    "daemon-that-forks": daemon_that_forks,
    "memory-in-another-session": memory_in_another_session,
    "shared-memory-filler": shared_memory_filler,
}


def main() -> None:
    """Run the program that the input names."""
    require_isolation()
    PROGRAMS[Path(sys.argv[1]).read_text(encoding="utf-8").strip()]()


if __name__ == "__main__":
    main()
