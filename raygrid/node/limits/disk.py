"""The disk of a node: enforces output limits, and decides which attempts failed because the disk was full.

A thread reads ten times a second how much of the disk is free, which costs next to nothing. It measures the files of a
pricer only if that, or their growth so far, shows that the pricer may have come near its limit. A pricer that fills the
disk is killed; attempts beside it that failed meanwhile run again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from raygrid.models import AttemptId, AttemptReport, Outcome
from raygrid.node.attempt.workspace import DISK_RESERVE, Workspace
from raygrid.node.limits import largest_attempt
from raygrid.node.limits.allocated import allocated, deleted_but_open
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog
from raygrid.system.proc import process_table

logger = logging.getLogger(__name__)

TICK_S = 0.1
LOOK_S = 1.0  # a pricer that runs for longer is measured at least this often
FIRST_LOOK_S = 0.5
LOW = DISK_RESERVE // 4  # with less room than this, an attempt that fills the disk is ended
FULL = 1024**2  # and with less than this, writes have failed
REST = 10  # measuring the files of an attempt takes at most one part in so many of the time
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskWatch:
    """Watches the disk of one agent. `close` ends its thread.

    Args:
        watchdog: knows what runs.
        workspace: where the agent works.
        changed: called from the thread when the node begins or ceases to have too little room.

    Attributes:
        why: why the node can take no work now; None while there is room.
    """

    def __init__(self, watchdog: Watchdog, workspace: Workspace, changed: Callable[[], None] = lambda: None) -> None:
        self._watchdog = watchdog
        self._workspace = workspace
        self._changed = changed
        self.why: str | None = None
        self._gauges: dict[AttemptId, _Gauge] = {}
        self._free_before: int | None = None  # at the last look, unless nothing ran at that time
        self._low_at = self._full_at = float("-inf")  # when that was seen last
        self._next_search_at = float("-inf")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="raygrid-disk", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a look at a disk that hangs is not waited for."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    # --- limits -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        took_s = 0.0
        while not self._closed.wait(max(TICK_S, took_s)):  # at most half of the time goes into looks
            began = time.monotonic()
            running = self._watchdog.all()
            if running or self._gauges or self.why is not None:
                try:
                    self._look(running)
                except Exception:  # must not end the thread: nothing else enforces these limits
                    logger.exception("disk of %s: a look failed; it is repeated", self._workspace.root)
            else:
                self._free_before = None
            took_s = time.monotonic() - began

    def _look(self, running: Sequence[Running]) -> None:
        free = self._free()
        if free is None:
            return
        now = time.monotonic()
        self._gauges = {each.attempt: self._gauge(each) for each in running}
        self._free_before = free
        pids: dict[AttemptId, list[int]] | None = None
        for gauge in self._gauges.values():
            if not gauge.is_due(free, now):
                continue
            gauge.look(free)
            if not gauge.is_over and gauge.misses:
                if pids is None:
                    pids = largest_attempt.pids_of(running, list(process_table()))
                gauge.look_deeper(pids[gauge.running.attempt], self._device())
            if gauge.is_over:
                _end(gauge.running, gauge.message)
        if free < LOW and now >= self._next_search_at:
            self._kill_largest(running, free)

    def _gauge(self, running: Running) -> _Gauge:
        known = self._gauges.get(running.attempt)
        return known if known is not None and known.running is running else _Gauge(running, self._free_before)

    def _kill_largest(self, running: Sequence[Running], free: int) -> None:
        """Kill the attempt that fills the disk, one at a time: once its files are removed, there may be room enough."""
        began = time.monotonic()
        if any(each.killed_for is Outcome.OUTPUT_LIMIT and not each.ended for each in running):
            return
        found = largest_attempt.find_largest(running, self._workspace.root, DISK_RESERVE - LOW)
        self._next_search_at = time.monotonic() + REST * (time.monotonic() - began)
        # Checked again: if the files of the largest attempt were removed meanwhile, another one was found.
        if found is not None and self._is_low():
            _end(found.running, _filled(found.held, free, self._workspace))

    def _is_low(self) -> bool:
        free = self._free()
        return free is not None and free < LOW

    def _device(self) -> int:
        return os.stat(self._workspace.root).st_dev

    def _free(self) -> int | None:
        """Measure and note the free bytes; None where they cannot be measured."""
        try:
            free = self._workspace.free_bytes()
        except OSError:
            return None
        now = time.monotonic()
        if free < LOW:
            self._low_at = now
        if free < FULL:
            self._full_at = now
        before, why = self.why, None
        if free < DISK_RESERVE:
            why = f"its disk is nearly full: {free} bytes free at {self._workspace.root}"
        self.why = why
        if (before is None) != (why is None):
            self._changed()
        return free

    # --- ends -------------------------------------------------------------------------------------------------------

    def judge(self, running: Running, report: AttemptReport) -> AttemptReport:
        """The report of a pricer that has ended, while its files still exist: the same, unless the disk was full.

        A failure with little room left need not be the job's. With no room left, even a success may lack what could
        not be written. If this attempt fills the disk, it has reached its output limit; else it runs again.
        """
        if report.outcome not in (Outcome.EXITED, Outcome.SIGNAL):
            return report
        free, done = self._free(), report.exit_code == 0
        if free is None or not (free < (FULL if done else DISK_RESERVE) or self._had_no_room(running, done=done)):
            return report
        if free < LOW and (filled := self._filled_by(running, free)) is not None:
            return replace(report, outcome=Outcome.OUTPUT_LIMIT, message=filled)
        return self._no_answer(report, f"had {free} bytes free" if free < DISK_RESERVE else "was full while it ran")

    def judge_result(self, running: Running, report: AttemptReport) -> AttemptReport:
        """The report of an attempt whose result lacks a file: the pricer may have had no room to write it."""
        spoilt = report.outcome in (Outcome.MISSING_OUTPUT, Outcome.BAD_OUTPUT)
        return (
            self._no_answer(report, "was full while it ran") if spoilt and self._low_at >= running.started else report
        )

    def no_room_for_result(self, running: Running, report: AttemptReport, error: OSError) -> AttemptReport:
        """The report of an attempt whose result does not fit on the disk: its files fill the disk, or others do."""
        self._low_at = self._full_at = time.monotonic()
        if (filled := self._filled_by(running, None)) is not None:
            return replace(report, outcome=Outcome.OUTPUT_LIMIT, message=filled)
        return self._no_answer(report, f"took no result: {error.strerror}")

    def no_room(self, attempt: AttemptId, error: OSError) -> AttemptReport:
        """The report of an attempt that could not begin because the disk is full."""
        return self._no_answer(AttemptReport(attempt, Outcome.DISK_FULL), f"refused a file: {error.strerror}")

    def _had_no_room(self, running: Running, *, done: bool) -> bool:
        return (self._full_at if done else self._low_at) >= running.started

    def _filled_by(self, running: Running, free: int | None) -> str | None:
        """The message for an attempt that fills the disk; None where it does not."""
        own = [*(each for each in self._watchdog.all() if each is not running), running]
        with contextlib.suppress(OSError):
            found = largest_attempt.find_largest(own, self._workspace.root, DISK_RESERVE - LOW)
            if found is not None and found.running is running and (free is None or self._is_low()):
                return _filled(found.held, free, self._workspace)
        return None

    def _no_answer(self, report: AttemptReport, what: str) -> AttemptReport:
        message = f"the disk of its node {what} ({self._workspace.root}); the job runs again and loses no attempt by it"
        return AttemptReport(report.attempt, Outcome.DISK_FULL, message=message)


def _end(running: Running, message: str) -> None:
    """Kill an attempt at once, even one that has been stopped for another reason and is in its grace."""
    running.stop(Outcome.OUTPUT_LIMIT, message, 0)
    running.kill()


def _filled(held: int, free: int | None, workspace: Workspace) -> str:
    left = "" if free is None else f", where {free} bytes were left"
    return (
        f"killed for filling the disk: its files take {held} bytes at {workspace.root}{left}. Have it write less, give "
        "the node a larger disk, or set a smaller `output` limit for the pricer"
    )


class _Gauge:
    """The disk space that one attempt takes, and when to measure it again."""

    def __init__(self, running: Running, free: int | None) -> None:
        self.running = running
        self._named = self._nameless = 0  # bytes in its named files, and in nameless ones that it keeps open
        self._missed = 0  # bytes used since the last look at nameless files that named ones do not explain
        self._free = free  # free bytes at the last look; at first, those before it began, if known
        self._at = running.started
        self._next = running.started + FIRST_LOOK_S
        self._not_before = running.started

    @property
    def _written(self) -> int:
        return self._named + self._nameless - self.running.given

    @property
    def _room(self) -> int:
        return max(0, self.running.output - self._written)

    @property
    def is_over(self) -> bool:
        """Whether it has written more than it may."""
        return self._written > self.running.output

    @property
    def misses(self) -> bool:
        """Whether the disk lost so much more space than its files explain that nameless files may exceed its limit."""
        return self._missed > self._room // 2

    @property
    def message(self) -> str:
        """The message for an attempt over its limit."""
        limit = self.running.output
        return f"killed for writing more than its limit of {limit} bytes: {self._written} bytes on disk"

    def is_due(self, free: int, now: float) -> bool:
        """Whether it may have come near its limit since the last look, or was last looked at long ago."""
        if now < self._not_before:
            return False
        return self._free is None or now >= self._next or self._free - free > self._room // 2

    def look(self, free: int) -> None:
        """Measure its named files."""
        began, before = time.monotonic(), self._named
        self._named = allocated(self.running.paths).written
        grown = self._named - before
        if self._free is not None:
            self._missed += max(0, self._free - free - max(0, grown))
        until_over_s = self._room * (began - self._at) / grown if grown > 0 else LOOK_S
        self._free, self._at = free, began
        now = time.monotonic()
        self._next = now + min(LOOK_S, until_over_s / 2)
        self._not_before = now + REST * (now - began)

    def look_deeper(self, pids: Sequence[int], device: int) -> None:
        """Measure the files that have no name any more."""
        self._nameless = deleted_but_open(pids, device).written
        self._missed = 0
