"""The watchdog's record of a warm pricer's process, from before it is spawned until it was reaped.

The pool sets the attempt that it runs; the watchdog adds the children that it has seen.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from raygrid.models import AttemptId
from raygrid.system.processes import signal_group


@dataclass(slots=True)
class WarmProcessRecord:
    """A warm process, which outlives its jobs.

    `pid` is 0 until it is spawned; `attempt` is None between jobs; `has_loaded` tells whether it has read a job, and is
    called only while it has a pid and has not ended a job. `initial_children`, which may stay, are those of the first
    look after that. `has_stray` means that a later child outlived the job in which it was seen first; then the process
    is ended with all its children. A child counts from the second look on, because the process table is older than
    `attempt`.
    """

    mark: str
    pricer: str = ""
    pid: int = 0
    attempt: AttemptId | None = None
    has_loaded: Callable[[], bool] = lambda: False
    is_loading: bool = True  # when the process table was read
    has_ended_a_job: bool = False
    initial_children: frozenset[int] | None = None
    later_children: dict[int, AttemptId | None] = field(default_factory=dict)
    has_stray: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, attempt: AttemptId | None) -> bool:
        """Note that a job begins, or with None that it has ended; False if the process must not run a further job."""
        with self.lock:
            self.attempt = attempt
            self.has_ended_a_job = self.has_ended_a_job or attempt is None
            return not self.has_stray

    def note_loading(self) -> None:
        """Note whether it still loads; called before the process table is read."""
        with self.lock:
            has_loaded = self.has_ended_a_job or (self.pid != 0 and self.has_loaded())
            self.is_loading = self.is_loading and not has_loaded

    def look(self, children: frozenset[int]) -> None:
        """Check for children that a job left behind; kill the process at once if there are any between jobs."""
        with self.lock:
            if self.is_loading:
                return
            if self.initial_children is None:
                self.initial_children = children
            now, before = self.attempt, self.later_children
            self.later_children = {pid: before.get(pid, now) for pid in children - self.initial_children}
            outlived = any(
                pid in before and (first is None or first != now) for pid, first in self.later_children.items()
            )
            self.has_stray = self.has_stray or outlived
            if self.has_stray and now is None and self.pid:
                signal_group(self.pid, signal.SIGKILL)

    def reaped(self) -> None:
        """Forget the pid, which may be reused soon; called while the process is still a zombie."""
        with self.lock:
            self.pid = 0
