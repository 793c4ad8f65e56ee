"""The disk of a node: enforces output limits, and decides which attempts failed because the disk was full.

A thread reads ten times a second how much of the disk is free, which is cheap. It measures the files of a pricer only
if that, or their growth so far, shows that the pricer may be near its limit. A pricer that fills the disk is killed;
other attempts that failed meanwhile run again.
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
from raygrid.node.limits.files_elsewhere import FilesElsewhere
from raygrid.node.limits.process_trees import processes_of
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog
from raygrid.system.proc import Process, process_table

logger = logging.getLogger(__name__)

TICK_S = 0.1
LOOK_S = 1.0  # a pricer that runs for longer is measured at least this often
FIRST_LOOK_S = 0.5
LOW = DISK_RESERVE // 4  # with fewer bytes free, an attempt that fills the disk is killed
FULL = 1024**2  # with fewer bytes free, writes have probably failed
REST = 10  # measuring the files of an attempt takes at most 1/REST of the time
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskWatch:
    """Watches the disk of one agent. `close` ends its thread.

    `changed` is called from the thread when `why` becomes or ceases to be None; `why` states why the node can take no
    work now.
    """

    def __init__(self, watchdog: Watchdog, workspace: Workspace, changed: Callable[[], None] = lambda: None) -> None:
        self._watchdog = watchdog
        self._workspace = workspace
        self._changed = changed
        self.why: str | None = None
        self._usages: dict[AttemptId, _DiskUsage] = {}
        self._free_before: int | None = None  # at the last look, unless nothing ran at that time
        self._low_at = self._full_at = float("-inf")  # when the disk was last seen low, and full
        self._next_search_at = float("-inf")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="raygrid-disk", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop, without waiting for a disk that hangs."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    # --- limits -----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        took_s = 0.0
        while not self._closed.wait(max(TICK_S, took_s)):  # looks take at most half of the time
            began = time.monotonic()
            running = self._watchdog.all()
            if running or self._usages or self.why is not None:
                try:
                    self._look(running)
                except Exception:  # must not end the thread: nothing else enforces these limits
                    logger.exception("the disk at %s could not be checked; trying again", self._workspace.root)
            else:
                self._free_before = None
            took_s = time.monotonic() - began

    def _look(self, running: Sequence[Running]) -> None:
        free = self._free()
        if free is None:
            return
        now = time.monotonic()
        self._usages = {each.attempt: self._usage(each) for each in running}
        self._free_before = free
        processes: dict[AttemptId, list[Process]] | None = None
        for usage in self._usages.values():
            if not usage.is_due(free, now):
                continue
            usage.measure(free, self._watchdog.pids_of(usage.running))
            if not usage.is_over and usage.has_unexplained:
                if processes is None:
                    table = list(process_table())
                    processes = processes_of(running, table, self._watchdog.helpers.attempts_of_orphans(table))
                pids = [process.pid for process in processes[usage.running.attempt]]
                usage.measure_deleted(pids, os.stat(self._workspace.root).st_dev)
            if usage.is_over:
                _end(usage.running, usage.message)
        if free < LOW and now >= self._next_search_at:
            self._kill_largest(running, free)

    def _usage(self, running: Running) -> _DiskUsage:
        known = self._usages.get(running.attempt)
        return known if known is not None and known.running is running else _DiskUsage(running, self._free_before)

    def _kill_largest(self, running: Sequence[Running], free: int) -> None:
        """Kill the attempt that fills the disk, one at a time: removing its files may free enough space."""
        began = time.monotonic()
        if any(each.killed_for is Outcome.OUTPUT_LIMIT and not each.ended for each in running):
            return
        found = self._find_largest(running)
        self._next_search_at = time.monotonic() + REST * (time.monotonic() - began)
        # Checked again, because another attempt was found if the files of the largest one were removed meanwhile.
        if found is not None and self._is_low():
            _end(found.running, _filled(found.held, free, self._workspace))

    def _find_largest(self, own: Sequence[Running]) -> largest_attempt.LargestAttempt | None:
        orphans_of = self._watchdog.helpers.attempts_of_orphans
        return largest_attempt.find_largest(own, self._workspace.root, DISK_RESERVE - LOW, orphans_of)

    def _is_low(self) -> bool:
        free = self._free()
        return free is not None and free < LOW

    def _free(self) -> int | None:
        """Measure and note the free bytes; None if they cannot be measured."""
        try:
            free = self._workspace.free_bytes()
        except OSError:
            return None
        now = time.monotonic()
        if free < LOW:
            self._low_at = now
        if free < FULL:
            self._full_at = now
        before, self.why = self.why, self._workspace.why_full(free)
        if (before is None) != (self.why is None):
            self._changed()
        return free

    # --- ends -------------------------------------------------------------------------------------------------------

    def judge(self, running: Running, report: AttemptReport) -> AttemptReport:
        """The report of a pricer that has ended, while its files still exist: the same, unless the disk was full.

        With little space left, a failure may be the disk's fault; with none, even a success may lack a file. An attempt
        that fills the disk has reached its output limit; another one runs again.
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
        """The report of an attempt whose files are bad or missing: the pricer may have had no space to write them."""
        is_bad = report.outcome in (Outcome.MISSING_OUTPUT, Outcome.BAD_OUTPUT)
        if is_bad and self._had_no_room(running, done=False):
            return self._no_answer(report, "was full while it ran")
        return report

    def no_room_for_result(self, running: Running, report: AttemptReport, error: OSError) -> AttemptReport:
        """The report of an attempt whose result does not fit on the disk."""
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
        """The message for an attempt that fills the disk; None if it does not."""
        own = [*(each for each in self._watchdog.all() if each is not running), running]
        with contextlib.suppress(OSError):
            found = self._find_largest(own)
            if found is not None and found.running is running and (free is None or self._is_low()):
                return _filled(found.held, free, self._workspace)
        return None

    def _no_answer(self, report: AttemptReport, what: str) -> AttemptReport:
        message = f"the disk of its node {what} ({self._workspace.root}); the job runs again, and no attempt is counted"
        return AttemptReport(report.attempt, Outcome.DISK_FULL, message=message)


def _end(running: Running, message: str) -> None:
    """Kill an attempt at once, even one in the grace of an earlier stop."""
    running.stop(Outcome.OUTPUT_LIMIT, message, 0)
    running.kill()


def _filled(held: int, free: int | None, workspace: Workspace) -> str:
    left = "" if free is None else f", where {free} bytes were left"
    return (
        f"killed for filling the disk: its files take {held} bytes at {workspace.root}{left}. Have it write less, give "
        "the node a larger disk, or set a smaller `output` limit for the pricer"
    )


class _DiskUsage:
    """The disk space that one attempt takes, and when to measure it again."""

    def __init__(self, running: Running, free: int | None) -> None:
        self.running = running
        self._named = self._deleted = 0  # bytes in its files, and in deleted files that it keeps open
        self._elsewhere = FilesElsewhere(running)
        self._unexplained = 0  # bytes that the disk lost since `measure_deleted` and that its files do not explain
        self._free = free  # free bytes at the last measurement; at first, those before it began, if known
        self._at = running.started
        self._next = running.started + FIRST_LOOK_S
        self._not_before = running.started

    @property
    def _written(self) -> int:
        return self._named + self._deleted + self._elsewhere.bytes - self.running.foreign_bytes

    @property
    def _room(self) -> int:
        return max(0, self.running.output - self._written)

    @property
    def is_over(self) -> bool:
        """Whether it has written more than its limit."""
        return self._written > self.running.output

    @property
    def has_unexplained(self) -> bool:
        """Whether the disk lost so much space beyond its files that its deleted files may exceed the limit."""
        return self._unexplained > self._room // 2

    @property
    def message(self) -> str:
        """The message for an attempt over its limit."""
        limit = self.running.output
        outside = f", {self._elsewhere.bytes} of them outside of its directories" if self._elsewhere.bytes else ""
        return f"killed for writing more than its limit of {limit} bytes: {self._written} bytes on disk{outside}"

    def is_due(self, free: int, now: float) -> bool:
        """Whether it may have come near its limit since the last measurement, or that is long ago."""
        if now < self._not_before:
            return False
        return self._free is None or now >= self._next or self._free - free > self._room // 2

    def measure(self, free: int, pids: Sequence[int]) -> None:
        """Measure its files; `free` are the free bytes of the disk now, `pids` its processes."""
        began, before = time.monotonic(), self._named
        self._named = allocated(self.running.paths).written
        elsewhere_before = self._elsewhere.bytes
        if self._named <= self.running.output:
            self._elsewhere.measure(pids, self._named - self.running.foreign_bytes, self._room)
        grown = self._named - before
        if self._free is not None:
            self._unexplained += max(0, self._free - free - max(0, grown))
        grown += self._elsewhere.bytes - elsewhere_before
        until_over_s = self._room * (began - self._at) / grown if grown > 0 else LOOK_S
        self._free, self._at = free, began
        now = time.monotonic()
        self._next = now + min(LOOK_S, until_over_s / 2)
        self._not_before = now + REST * (now - began)

    def measure_deleted(self, pids: Sequence[int], device: int) -> None:
        """Measure its deleted files that are still open."""
        self._deleted = deleted_but_open(pids, device).written
        self._unexplained = 0
