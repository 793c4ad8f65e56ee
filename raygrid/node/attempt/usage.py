"""How the process of an attempt ended, what it used, and which processes may still write into its files."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from enum import Enum

from raygrid.system.proc import CpuAndMemory


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds of one attempt, in the program and in the kernel on its behalf, and its memory.

    Attributes:
        max_rss_bytes: the peak of its memory; None if it is not known.
        warm_job: which job of its process this was, from 1; None for a cold pricer.
    """

    user_s: float
    system_s: float
    max_rss_bytes: int | None
    warm_job: int | None = None

    @staticmethod
    def of_child(usage: resource.struct_rusage) -> Usage:
        """What a process that has ended used.

        Its peak memory is None if it is below the agent's own: a child shares the agent's memory until its exec, and
        Linux counts that.
        """
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = usage.ru_maxrss * 1024 if usage.ru_maxrss > own else None
        return Usage(usage.ru_utime, usage.ru_stime, peak)

    @staticmethod
    def of_warm_job(before: CpuAndMemory, after: CpuAndMemory, warm_job: int) -> Usage:
        """What a warm process used for one job; the peak is None unless it rose."""
        peak = after.peak_rss_bytes if after.peak_rss_bytes > before.peak_rss_bytes else None
        user_s, system_s = after.user_s - before.user_s, after.system_s - before.system_s
        return Usage(round(max(0.0, user_s), 3), round(max(0.0, system_s), 3), peak, warm_job)


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How the process of an attempt ended (`status` is the wait status), or what a warm process answered.

    Attributes:
        message: what a warm pricer added to its answer.
        answered: False if a warm process ended without an answer to its job; then even exit code 0 is a failure.
    """

    status: int
    usage: Usage
    message: str | None = None
    answered: bool = True

    @property
    def exit_code(self) -> int:
        """The exit code; the negative number of the signal if one ended the process."""
        return os.waitstatus_to_exitcode(self.status)


class RemainingWriters(Enum):
    """The processes that may still write into the files of an attempt that has ended; decides what is reused."""

    NONE = "none"
    WARM_PROCESS = "a warm process, which runs further jobs"
    UNKNOWN = "unknown"
