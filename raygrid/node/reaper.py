"""A small process for each agent: it cleans up when the agent dies, even by `kill -9`, and kills a frozen agent.

It waits for the end of its standard input, into which the agent writes heartbeats (`system/guard.py`). Then it kills
every process that has the agent's mark or that the agent has recorded (`ProcessReporter`), with all their descendants,
and removes the job directories. Run as a script:
`python reaper.py <mark prefix> <pid of the agent> <silence of a frozen agent, s> <directories to remove>`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from raygrid.node.attempt.safe_paths import remove_tree
from raygrid.system.guard import watch
from raygrid.system.heartbeat import Heartbeat, start_guard
from raygrid.system.killing import kill_lineage
from raygrid.system.proc import process_of

AGAIN_S = 0.2  # a pricer that was being spawned when the agent died has its mark a moment later
KILL_S = 20.0
MOST_KNOWN = 10_000
_RECORDS_PER_WRITE = 100  # no more than a pipe takes in one piece


def start(mark_prefix: str, directories: Sequence[Path], frozen_s: float) -> Heartbeat:
    """Start the reaper of the agent in this process; it cleans up and ends when the returned object is closed."""
    words = [mark_prefix, str(os.getpid()), str(frozen_s), *map(str, directories)]
    return Heartbeat(start_guard([sys.executable, "-m", "raygrid.node.reaper", *words]))


class ProcessReporter:
    """The agent's side of the record: sends each process that pricers started to the reaper, once.

    A daemon that has lost both its mark and its parents is found only by this. `send` takes up to `select.PIPE_BUF`
    bytes, and returns False if it cannot take them now.
    """

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._sent: set[tuple[int, int]] = set()

    def __call__(self, processes: Collection[tuple[int, int]]) -> None:
        """Record the processes that exist now, by pid and start time."""
        with self._lock:
            self._sent.intersection_update(processes)
            unsent = [each for each in processes if each not in self._sent]
            for begin in range(0, len(unsent), _RECORDS_PER_WRITE):
                some = unsent[begin : begin + _RECORDS_PER_WRITE]
                if not self._send(b"".join(b"%d:%d;" % each for each in some)):
                    return  # the reaper is frozen or busy; the next call tries again
                self._sent.update(some)


class RecordedProcesses:
    """The reaper's side of the record: the recorded processes that still exist."""

    def __init__(self) -> None:
        self._rest = b""
        self._known: dict[int, int] = {}
        self._prune_at = MOST_KNOWN

    def feed(self, data: bytes) -> None:
        """Take what the agent wrote, its heartbeats included."""
        *lines, self._rest = (self._rest + data.replace(b".", b"")).split(b";")
        for line in lines:
            pid, _, started = line.partition(b":")
            self._known[int(pid)] = int(started)
        if len(self._known) > self._prune_at:
            self._known = dict(self.alive())
            self._prune_at = max(MOST_KNOWN, 2 * len(self._known))

    def alive(self) -> list[tuple[int, int]]:
        """The recorded processes that still exist, by pid and start time."""
        there = ((pid, started, process_of(pid)) for pid, started in self._known.items())
        return [(pid, started) for pid, started, process in there if process and process.started == started]


def main(mark_prefix: str, agent: str, frozen_s: str, *directories: str) -> None:
    """Wait for the agent's end, then clean up after it."""
    recorded = RecordedProcesses()
    with contextlib.suppress(KeyboardInterrupt):
        watch(int(agent), float(frozen_s), heard=recorded.feed)
    for pause_s in (AGAIN_S, 0.0):
        kill_lineage(recorded.alive(), lambda mark: mark.startswith(mark_prefix), KILL_S)
        time.sleep(pause_s)
    for directory in directories:
        with contextlib.suppress(OSError):
            remove_tree(Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
