"""A running pricer, shared by its attempt and the watchdog: its process, its limits, and why it was killed."""

from __future__ import annotations

import signal
import sys
import threading
import time
from dataclasses import dataclass, field

from raygrid.models import AttemptId, Outcome
from raygrid.node.limits.segments import AttemptSegments
from raygrid.system.proc import seconds_since_boot
from raygrid.system.processes import has_exited, signal_group

OTHER_LIMITS = frozenset({Outcome.MEMORY_LIMIT, Outcome.OUTPUT_LIMIT, Outcome.PROCESS_LIMIT})


@dataclass(slots=True)
class Running:
    """A pricer that is about to run, or runs; thread-safe.

    Attributes:
        started: when the attempt began, on the monotonic clock.
        memory: its limit in bytes; None for no limit.
        output: its limit in bytes.
        paths: the paths of its files.
        pid: its process; 0 until it is spawned.
        killed_for: why it was killed or stopped, for people in `message`; None if it was not.
        kill_at: when it is killed after it was stopped, on the monotonic clock.
        ended: whether its process has ended, or no longer belongs to the attempt.
        crowded: whether other pricers ran on the machine when it was killed for lack of memory.
        left_nothing: whether no process that it started is left, after its end.
        foreign_bytes: bytes at `paths` that it did not write, such as input, shared data, and files of earlier jobs.
        processes: its limit of processes and threads together.
        watched_at: when it was announced to the watchdog, just before its process is spawned, in seconds since boot.
        shared_memory: a descriptor of its private /dev/shm, whose files count as memory; -1 if it has none.
        segments: its System V shared memory; None if that is unknown.
    """

    attempt: AttemptId
    started: float
    timeout_s: float
    memory: int | None
    output: int
    paths: tuple[str, ...]
    pid: int = 0
    pricer: str = ""
    killed_for: Outcome | None = None
    message: str | None = None
    kill_at: float | None = None
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    crowded: bool = False
    left_nothing: bool = False
    foreign_bytes: int = 0
    processes: int = sys.maxsize
    shared_memory: int = -1
    segments: AttemptSegments | None = None
    watched_at: float = field(default_factory=seconds_since_boot)

    @property
    def directory(self) -> str:
        """The first of its paths, its job directory; empty if it has none."""
        return self.paths[0] if self.paths else ""

    def spawned(self, pid: int) -> None:
        """Note the pid; stop the process if the attempt was stopped before."""
        with self.lock:
            self.pid = pid
            if self.killed_for is not None:
                self._signal()

    def stop(self, why: Outcome, message: str, grace_s: float) -> None:
        """Send SIGTERM to the whole session; after the grace, the watchdog sends SIGKILL.

        The attempt then ends for this reason with any exit code: a program that shuts down cleanly exits 0 with half
        its work done. A process that had ended before the signal keeps its own outcome.
        """
        with self.lock:
            if self.ended or self.killed_for is not None or (self.pid and has_exited(self.pid)):
                return
            self._end_for(why, message, grace_s)

    def fail(self, why: Outcome, message: str) -> None:
        """Kill the whole session for something that it did; the reason counts even if its process has just ended."""
        with self.lock:
            if not self.ended and self.killed_for is None:
                self._end_for(why, message, 0)

    def _end_for(self, why: Outcome, message: str, grace_s: float) -> None:
        now = time.monotonic()
        if why in OTHER_LIMITS and self.is_past_its_time(now):  # the watchdog has not noticed that yet
            why, message = Outcome.TIMEOUT, self.past_its_time
        self.killed_for, self.message = why, message
        self.kill_at = now + grace_s
        if self.pid:
            self._signal()

    def _signal(self) -> None:
        has_time = self.kill_at is not None and self.kill_at > time.monotonic()
        signal_group(self.pid, signal.SIGTERM if has_time else signal.SIGKILL)

    def is_past_its_time(self, now: float) -> bool:
        """Whether it has reached its time limit."""
        return now >= self.started + self.timeout_s

    @property
    def past_its_time(self) -> str:
        """The message of an attempt that reached its time limit."""
        return f"killed at its wall-time limit of {self.timeout_s:g} s"

    def kill(self) -> None:
        """Kill the whole session."""
        with self.lock:
            if self.pid and not self.ended:
                signal_group(self.pid, signal.SIGKILL)

    def detach(self) -> bool:
        """Never signal its process again, which outlives the attempt; return whether it had been stopped."""
        with self.lock:
            self.ended = True
            return self.killed_for is not None

    def never_began(self) -> bool:
        """Note that a warm pricer died before it took the job; False if the job was stopped and must not run again."""
        with self.lock:
            if self.killed_for is not None:
                return False
            self.pid = 0
            return True

    def end(self) -> None:
        """Kill the rest of the session after the pricer's process has ended, before its pid can be reused."""
        with self.lock:
            self.ended = True
            signal_group(self.pid, signal.SIGKILL)
