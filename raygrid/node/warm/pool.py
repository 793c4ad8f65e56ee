"""The warm processes of a node: which one takes a job, which are replaced, and how many stay loaded.

The slot threads of the agent take a process, run a job in it, and return it. At most as many run jobs as there are
slots; between jobs, the most recently used stay loaded. One thread ends replaced processes.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from raygrid.errors import UnavailableError
from raygrid.models import AttemptId
from raygrid.node.attempt.stages import PreparedAttempt
from raygrid.node.attempt.usage import ProcessEnd
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog
from raygrid.node.sandbox.no_sandbox import NoSandbox
from raygrid.node.warm.process import WarmProcess
from raygrid.settings.definition import same_definition
from raygrid.settings.pricer import Pricer

KEPT_PER_SLOT = 4  # processes that may stay loaded for each slot; the longest idle is ended first
ENDING_PER_SLOT = KEPT_PER_SLOT  # while more processes are ending, no further process is started
OLD_IDLE_S = 5.0  # how long a process of an earlier definition stays loaded for queued jobs with that definition
CLOSE_S = 10.0
HURRY_S = 0.05


class WarmPool:
    """Keeps warm processes; thread-safe. `close` ends them all.

    `mark_prefix` is what the agent's marks begin with, `environment` has the variables that all processes get.
    """

    def __init__(self, watchdog: Watchdog, mark_prefix: str, environment: Mapping[str, str]) -> None:
        self._watchdog = watchdog
        self._mark_prefix = mark_prefix
        self._environment = environment
        self._pricers: Mapping[str, Pricer] = {}
        self._slots = 1
        self._work = threading.Condition()
        self._idle: list[WarmProcess] = []  # used last at the end
        self._busy = 0
        self._serial = 0
        self._ending: deque[WarmProcess] = deque()
        self._closed = False
        self._thread: threading.Thread | None = None

    def follow(self, pricers: Mapping[str, Pricer], slots: int) -> None:
        """Apply newer settings.

        Processes of an earlier definition stay for some seconds, for jobs that are still queued with it; those with
        other limits get no further job.
        """
        with self._work:
            self._pricers, self._slots = pricers, slots
            self._dismiss_idle(self._has_other_limits)
            self._make_room()
            if self._idle:
                self._wake_thread()

    def _has_other_limits(self, process: WarmProcess) -> bool:
        now = self._pricers.get(process.name)
        return now is not None and now != process.pricer and same_definition(now, process.pricer)

    def reap_ended(self) -> None:
        """Reap idle processes that have ended by themselves, or were killed."""
        with self._work:
            self._dismiss_idle(WarmProcess.has_exited)

    def retire(self, names: frozenset[str]) -> None:
        """End the idle processes of these pricers."""
        with self._work:
            self._dismiss_idle(lambda process: process.name in names)

    def close(self) -> None:
        """End all idle processes, then the thread."""
        with self._work:
            self._closed = True
            while self._idle:
                self._dismiss(self._idle.pop())
            self._work.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=self._watchdog.grace_s + CLOSE_S)

    def take(self, name: str, definition: str, pricer: Pricer, attempt: AttemptId, box: NoSandbox) -> WarmProcess:
        """A loaded process for an attempt, or a new one in a sandbox.

        Raises:
            OSError: it cannot be started.
            UnavailableError: the agent is stopping, or too many killed processes do not end.
        """
        with self._work:
            if self._closed:
                raise UnavailableError("the node agent is stopping")
            fit = [each for each in reversed(self._idle) if (each.name, each.definition) == (name, definition)]
            for process in fit:
                self._idle.remove(process)
                if (
                    process.begin(attempt)
                    and process.pricer == pricer
                    and process.box is box
                    and not process.has_exited()
                ):
                    self._busy += 1
                    return process
                self._dismiss(process)
            self._busy += 1
            self._serial += 1
            serial = self._serial
            self._make_room()
        try:
            self._await_the_ending()
            shared = (self._mark_prefix, self._environment, self._watchdog)
            return WarmProcess(serial, name, definition, pricer, *shared, attempt, box)
        except BaseException:
            with self._work:
                self._busy -= 1
            raise

    def run(self, process: WarmProcess, running: Running, prepared: PreparedAttempt) -> ProcessEnd:
        """Run a job in a process from `take`, or in another one if that had died; OSError if the pipe or disk fails."""
        while True:
            ended: ProcessEnd | None = None
            try:
                ended = process.run(running, prepared)
            except BaseException:
                running.detach()  # before its pid is used again
                raise
            finally:
                self._give_back(process, has_ended_job=ended is not None)
            if ended is not None:
                return ended
            process = self.take(process.name, process.definition, process.pricer, running.attempt, process.box)

    def _give_back(self, process: WarmProcess, *, has_ended_job: bool) -> None:
        """Keep a process for the next job if it can take one."""
        if not has_ended_job and not process.gone:
            process.kill()
            process.reap()
        stays = not process.gone and process.begin(None) and not process.is_spent
        with self._work:
            self._busy -= 1
            if process.gone:
                return
            if stays and not self._closed and not self._has_other_limits(process):
                process.idle_since = time.monotonic()
                self._idle.append(process)
                self._make_room()
                if self._pricers.get(process.name) != process.pricer:
                    self._wake_thread()
            else:
                self._dismiss(process)

    def _make_room(self) -> None:
        """End the longest idle processes if there are too many; called with the lock held."""
        while self._idle and len(self._idle) + self._busy > KEPT_PER_SLOT * self._slots:
            self._dismiss(self._idle.pop(0))

    def _await_the_ending(self) -> None:
        """Wait while too many processes are ending, and end the grace of the oldest; UnavailableError if that fails."""
        until = time.monotonic() + CLOSE_S
        with self._work:
            while len(self._ending) > ENDING_PER_SLOT * self._slots and not self._closed:
                if time.monotonic() > until:
                    raise UnavailableError(f"{len(self._ending)} processes of warm pricers were killed and do not end")
                self._ending[0].hurry()
                self._work.wait(HURRY_S)

    def _dismiss_idle(self, is_due: Callable[[WarmProcess], bool]) -> None:
        """Dismiss some of the idle processes; called with the lock held."""
        for process in [each for each in self._idle if is_due(each)]:
            self._idle.remove(process)
            self._dismiss(process)

    def _dismiss(self, process: WarmProcess) -> None:
        """Let the thread end a process; called with the lock held."""
        process.dismiss(self._watchdog.grace_s)
        self._ending.append(process)
        self._wake_thread()

    def _wake_thread(self) -> None:
        """Wake the thread that ends due processes, or start it; called with the lock held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._end_dismissed, name="raygrid-warm", daemon=True)
            self._thread.start()
        self._work.notify_all()

    def _dismiss_outdated(self) -> float | None:
        """Dismiss due processes of earlier definitions; return the seconds until the next one is due."""
        now, again = time.monotonic(), None
        for process in list(self._idle):
            if self._pricers.get(process.name) == process.pricer:
                continue
            left = process.idle_since + OLD_IDLE_S - now
            if left <= 0:
                self._idle.remove(process)
                self._dismiss(process)
            else:
                again = left if again is None else min(again, left)
        return again

    def _end_dismissed(self) -> None:
        while True:
            with self._work:
                while not self._closed:
                    again = self._dismiss_outdated()
                    if self._ending:
                        break
                    self._work.wait(again)
                if not self._ending:
                    return
                process = self._ending[0]  # it counts as ending until nothing of it is left
            process.await_end()
            with self._work:
                self._ending.popleft()
                self._work.notify_all()
