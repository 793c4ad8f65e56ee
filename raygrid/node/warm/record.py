"""A warm pricer's process as the watchdog knows it, from before it is spawned until after it was reaped.

The pool says which attempt it runs; the watchdog says what it has seen of its children.
"""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, field

from raygrid.models import AttemptId
from raygrid.system.processes import signal_group


@dataclass(slots=True)
class WarmProcessRecord:
    """A process that outlives its jobs, and must not be taken for something that was left behind.

    `pid` is 0 until it is spawned; `attempt` is None between jobs. `own` are the children that it had when it was first
    looked at: they stay. `strayed` says that a later child outlived the job in which it was seen first, so that the
    process must go, with all that it started. A child counts from the second look on: the table that tells of it is
    older than `attempt`.
    """

    mark: str
    pricer: str = ""
    pid: int = 0
    attempt: AttemptId | None = None
    own: frozenset[int] | None = None
    seen: dict[int, AttemptId | None] = field(default_factory=dict)
    strayed: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, attempt: AttemptId | None) -> bool:
        """A job begins, or with None has ended. False where the process takes none any more."""
        with self.lock:
            self.attempt = attempt
            return not self.strayed

    def look(self, children: frozenset[int]) -> None:
        """Find children that a job left behind; between jobs, that ends the process at once."""
        with self.lock:
            if self.own is None:
                self.own = children
            now, before = self.attempt, self.seen
            self.seen = {pid: before.get(pid, now) for pid in children - self.own}
            outlived = any(pid in before and (first is None or first != now) for pid, first in self.seen.items())
            self.strayed = self.strayed or outlived
            if self.strayed and now is None and self.pid:
                signal_group(self.pid, signal.SIGKILL)

    def reaped(self) -> None:
        """Its pid may become another's any moment; called while it is a zombie still."""
        with self.lock:
            self.pid = 0
