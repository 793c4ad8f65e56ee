"""Derives the report of an attempt from how its process ended, before its files are collected."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace

from raygrid.models import AttemptReport, Outcome
from raygrid.node.attempt.stages import JudgedAttempt, ProcessedAttempt
from raygrid.node.attempt.usage import RemainingWriters, Usage
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.limits.disk import DiskWatch
from raygrid.node.limits.kill_reasons import KillReason
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog

CHILD_WAS_KILLED = 128 + signal.SIGKILL  # the exit code of a shell whose child was killed
_HOW_TO_ANSWER = "it must answer each job with a line on its stdout, see docs/guides/warm-pricers.md"


class Judge:
    """Judges the ends of processes on one node.

    `kill_reason` returns why another agent or the kernel killed a pricer, or None if that is not known.
    """

    def __init__(
        self,
        workspace: Workspace,
        watchdog: Watchdog,
        disk: DiskWatch,
        kill_reason: Callable[[Running, Usage], KillReason | None],
    ) -> None:
        self._workspace = workspace
        self._watchdog = watchdog
        self._disk = disk
        self._kill_reason = kill_reason

    @staticmethod
    def remaining_writers(processed: ProcessedAttempt) -> RemainingWriters:
        """Which processes may still write into the attempt's files."""
        if processed.prepared.is_warm:
            return RemainingWriters.WARM_PROCESS
        return RemainingWriters.NONE if processed.running.left_nothing else RemainingWriters.UNKNOWN

    def judge(self, processed: ProcessedAttempt) -> JudgedAttempt:
        """The outcome of a process; its files must still exist."""
        running, usage = processed.running, processed.end.usage
        report = self._with_kill_reason(_report(processed), running, usage)
        if report.message is not None:
            report = replace(report, message=self._workspace.without_paths(report.message))
        return JudgedAttempt(processed.prepared, running, usage, self._disk.judge(running, report))

    def _with_kill_reason(self, report: AttemptReport, running: Running, usage: Usage) -> AttemptReport:
        """The report with the reason for a SIGKILL of the pricer or its child, if the reason is known."""
        if running.killed_for is not None or (report.signal != signal.SIGKILL and report.exit_code != CHILD_WAS_KILLED):
            return report
        reason = self._kill_reason(running, usage)
        if reason is None:
            return report
        return replace(report, outcome=Outcome.MEMORY_PRESSURE, message=reason.message, crowded=reason.crowded)


def _report(processed: ProcessedAttempt) -> AttemptReport:
    running, end = processed.running, processed.end
    code = end.exit_code
    exit_code, number = (code, None) if code >= 0 else (None, -code)
    outcome, message = Outcome.EXITED, None
    unanswered = "" if end.answered else "; the warm pricer ended without an answer"
    if running.killed_for is not None:  # even exit code 0 does not make it a success: the work was cut short
        outcome, message = running.killed_for, running.message
    elif number is not None:
        outcome, message = Outcome.SIGNAL, f"killed by signal {number} ({_signal_name(number)}){unanswered}"
    elif code != 0:
        message = f"the pricer exited with code {code}{unanswered}" + (f": {end.message}" if end.message else "")
    elif not end.answered:
        outcome = Outcome.BAD_OUTPUT
        message = f"the warm pricer ended without an answer (exit code 0); {_HOW_TO_ANSWER}"
    return AttemptReport(
        running.attempt,
        outcome,
        exit_code,
        number,
        message,
        started_at=processed.started_at,
        ended_at=processed.ended_at,
        crowded=running.crowded,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"
