"""The watchdog's record of a warm pricer's process, from before it is spawned until it was reaped.

The pool sets the attempt that it runs; the watchdog adds the processes that it has seen below it.
"""

from __future__ import annotations

import logging
import signal
import threading
from dataclasses import dataclass, field

from raygrid.models import AttemptId
from raygrid.system.proc import seconds_since_boot
from raygrid.system.processes import signal_group

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class WarmProcessRecord:
    """A warm process, which outlives its jobs.

    `pid` is 0 until it is spawned; `attempt` is None between jobs. `initial` are the processes below it as it began to
    read its first job; they may stay. None while it loads. `has_stray` means that a later one outlived the job in which
    it was seen first; then the process is ended with all below it. One counts from the second look on, because the
    process table is older than `attempt`. `watched_at` is when it was announced, in seconds since boot.
    """

    mark: str
    pricer: str = ""
    pid: int = 0
    attempt: AttemptId | None = None
    initial: frozenset[int] | None = None
    later: dict[int, AttemptId | None] = field(default_factory=dict)
    has_stray: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    watched_at: float = field(default_factory=seconds_since_boot)
    _attempt_before: AttemptId | None = None  # when the process table was read

    def begin(self, attempt: AttemptId | None) -> bool:
        """Note that a job begins, or with None that it has ended; False if the process must not run a further job."""
        with self.lock:
            self.attempt = attempt
            return not self.has_stray

    def loaded(self, below: frozenset[int]) -> None:
        """Note that it has loaded, and the processes below it at that moment."""
        with self.lock:
            self.initial = below

    def before_table(self) -> None:
        """Note the attempt; called before the process table of the next `look` is read."""
        with self.lock:
            self._attempt_before = self.attempt

    def look(self, below: frozenset[int]) -> None:
        """Check for processes that a job left behind; kill the process at once if there are any between jobs."""
        with self.lock:
            if self.initial is None:
                return
            now, seen = self.attempt, self.later
            self.later = {pid: seen.get(pid, now) for pid in below - self.initial}
            left = [
                pid
                for pid, first in self.later.items()
                if pid in seen and (first is None or first != self._attempt_before)
            ]
            if left and not self.has_stray:
                logger.warning(
                    "pricer %s: a job of process %d has left process %d behind; replacing both. A process that should "
                    "stay must be started before the program reads its first job",
                    *(self.pricer, self.pid, left[0]),
                )
            self.has_stray = self.has_stray or bool(left)
            if self.has_stray and now is None and self.pid:
                signal_group(self.pid, signal.SIGKILL)

    def reaped(self) -> None:
        """Forget the pid, which may be reused soon; called while the process is still a zombie."""
        with self.lock:
            self.pid = 0
