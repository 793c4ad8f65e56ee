"""How the process of an attempt ended and what it used: a process of its own, or a warm one that attempts share."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from raygrid.system.proc import cpu_and_memory


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU and memory of one attempt.

    Attributes:
        user_s: CPU seconds in the program.
        system_s: CPU seconds in the kernel on its behalf.
        max_rss_bytes: the peak of its memory; None where it is not known.
        warm_job: which job of its process this was, from 1; None for a cold pricer.
    """

    user_s: float
    system_s: float
    max_rss_bytes: int | None
    warm_job: int | None = None

    @staticmethod
    def of_child(usage: resource.struct_rusage) -> Usage:
        """What a process that has ended used.

        Its peak memory is None where it is below the agent's own: a child shares the agent's memory until it becomes
        the pricer, and Linux counts that.
        """
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = usage.ru_maxrss * 1024 if usage.ru_maxrss > own else None
        return Usage(usage.ru_utime, usage.ru_stime, peak)


@dataclass(frozen=True, slots=True)
class ProcessEnd:
    """How the process of an attempt ended, or what a warm process answered.

    Attributes:
        status: the wait status.
        usage: what the attempt used.
        message: what a warm pricer added to its answer.
        answered: False where a warm process ended without an answer to its job; then even exit code 0 is a failure.
    """

    status: int
    usage: Usage
    message: str | None = None
    answered: bool = True

    @property
    def exit_code(self) -> int:
        """The exit code; the negative number of the signal where one ended the process."""
        return os.waitstatus_to_exitcode(self.status)


@dataclass(frozen=True, slots=True)
class Consumed:
    """What a process has used since it was started, with the CPU of children that it waited for."""

    user_s: float = 0.0
    system_s: float = 0.0
    rss_bytes: int = 0
    peak_rss_bytes: int = 0

    def since(self, before: Consumed, warm_job: int) -> Usage:
        """What was used since an earlier value; the peak is None unless it rose."""
        peak = self.peak_rss_bytes if self.peak_rss_bytes > before.peak_rss_bytes else None
        user_s, system_s = self.user_s - before.user_s, self.system_s - before.system_s
        return Usage(round(max(0.0, user_s), 3), round(max(0.0, system_s), 3), peak, warm_job)


def consumed(pid: int) -> Consumed:
    """What a running process has used so far, CPU in steps of the kernel's clock (10 ms as a rule).

    Raises:
        OSError: it has gone.
    """
    used = cpu_and_memory(pid)
    return Consumed(used.user_s, used.system_s, used.rss_bytes, used.peak_rss_bytes)


def consumed_by_dead(usage: resource.struct_rusage) -> Consumed:
    """The same of a process that has ended."""
    return Consumed(usage.ru_utime, usage.ru_stime, 0, Usage.of_child(usage).max_rss_bytes or 0)
