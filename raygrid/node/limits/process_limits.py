"""Enforces the limits that count all processes of an attempt: memory, and the number of processes and threads.

Ten times a second the watchdog asks whether a table of all processes is needed, and passes it. Without a memory limit
that depends on how many processes and threads the machine has, which is read in a microsecond. An attempt that exceeds
a limit is killed with every process that it started, in any session, until none is left.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from raygrid.models import AttemptId, Outcome
from raygrid.node.helpers.lineage import ProcessOrigin
from raygrid.node.helpers.watch import Helpers
from raygrid.node.limits.memory_use import MemoryUse, memory_of
from raygrid.node.limits.process_trees import processes_of
from raygrid.node.limits.running import Running
from raygrid.node.limits.segments import LeftSegments
from raygrid.settings.pricer import Pricer
from raygrid.system.killing import kill_lineage
from raygrid.system.proc import Process, TotalTasks
from raygrid.system.process_memory import open_files_in_memory, shared_memory_of_machine
from raygrid.system.processors import usable_processors

logger = logging.getLogger(__name__)

KILLED_ENTIRELY = frozenset({Outcome.MEMORY_LIMIT, Outcome.OUTPUT_LIMIT, Outcome.PROCESS_LIMIT})
LEAST_GROWTH = 32  # fewer new processes and threads on the machine are no reason to count
CLEAN_LOOKS = 2
USUAL_PROCESSES = max(1_024, 64 * usable_processors())
"""The limit of processes and threads of a pricer whose settings have none."""
KILL_S = 1.0  # how long one look may try; then other limits are checked, and the next look goes on


class ProcessLimits:
    """Enforces these limits for one agent; used by the watchdog's thread, `released` by any thread."""

    def __init__(self, mark_prefix: str, helpers: Helpers) -> None:
        self._mark_prefix = mark_prefix
        self._helpers = helpers
        self._total = TotalTasks()
        self._total_before = 0  # processes and threads of the machine when those of attempts were counted
        self._counts: dict[AttemptId, int] = {}
        self._memory: dict[AttemptId, MemoryUse] = {}
        self._pids: dict[AttemptId, list[int]] = {}
        self._killed: dict[AttemptId, tuple[Running, int]] = {}  # that have ended; and looks that found none left
        self._left_segments = LeftSegments()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Remove the last segments, and release what it holds open."""
        self._left_segments.close()
        self._total.close()

    def released(self, running: Running) -> None:
        """Remove the segments of an attempt that has ended, and go on killing what is left if a limit ended it."""
        if running.segments is not None:
            running.segments.note([running.pid])
            self._left_segments.ended(running.segments)
        if running.killed_for in KILLED_ENTIRELY:
            with self._lock:
                self._killed[running.attempt] = running, 0

    def pids_of(self, running: Running) -> list[int]:
        """The processes of an attempt at the last count, which is at most a second old; at first only its own one."""
        return self._pids.get(running.attempt) or [running.pid]

    @property
    def is_killing(self) -> bool:
        """Whether an attempt that has ended may have processes left."""
        return bool(self._killed)

    def needs_table(self, all_running: Sequence[Running]) -> bool:
        """Whether an attempt may have exceeded a limit, or has processes that must be killed."""
        if self._killed or any(each.memory is not None or each.killed_for in KILLED_ENTIRELY for each in all_running):
            return True
        total = self._total.now()
        if total is None or not all_running:
            return False
        self._total_before = min(self._total_before, total)
        room = min(each.processes - self._counts.get(each.attempt, 0) for each in all_running)
        return total - self._total_before > max(LEAST_GROWTH, room // 2)

    def check(self, all_running: Sequence[Running], table: Sequence[Process], *, is_traced: bool) -> None:
        """Check all limits with a current table, which `helpers` has traced or not; kill what exceeds one."""
        orphans = self._helpers.attempts_of_orphans(None if is_traced else table)
        with self._lock:
            killed = [running for running, _ in self._killed.values()]
        processes = processes_of([*all_running, *killed], table, orphans)
        self._total_before = self._total.now() or 0
        self._counts = {}
        self._memory = {each.attempt: self._memory_of(each) for each in all_running if each.memory is not None}
        machine = shared_memory_of_machine() if self._memory else 0
        self._pids = {each.attempt: [process.pid for process in processes[each.attempt]] for each in all_running}
        for running in all_running:
            own = processes[running.attempt]
            if running.segments is not None:
                running.segments.note(self._pids[running.attempt])
            self._counts[running.attempt] = count = sum(max(1, process.threads) for process in own)
            if count > running.processes:
                running.stop(Outcome.PROCESS_LIMIT, _too_many(count, running.processes), 0)
            if running.memory is not None:
                used = self._memory[running.attempt].exceeds(running.memory, own, machine, time.monotonic())
                if used is not None:
                    message = f"killed for using {used} bytes of memory; its limit is {running.memory}"
                    running.stop(Outcome.MEMORY_LIMIT, message, 0)
            if running.killed_for in KILLED_ENTIRELY:
                self._kill(running, own)
        self._check_leftovers({running.attempt.name for running in all_running})
        for running in killed:
            is_clean = not self._kill(running, processes[running.attempt])
            with self._lock:
                looks = self._killed[running.attempt][1] + 1 if is_clean else 0
                self._killed[running.attempt] = running, looks
                if looks >= CLEAN_LOOKS:
                    del self._killed[running.attempt]
        self._left_segments.look()

    def _check_leftovers(self, running: AbstractSet[str]) -> None:
        """Kill what jobs left behind if it exceeds the limits of its pricers, and counts for no running attempt.

        Processes that the same attempts may have started count together.
        """
        groups: dict[ProcessOrigin, list[Process]] = {}
        for process, origin in self._helpers.leftovers:
            if not (len(origin.attempts) == 1 and origin.attempts <= running):
                groups.setdefault(origin, []).append(process)
        for origin, processes in groups.items():
            what = _excess(processes, self._helpers.gate.pricers(origin.pricers))
            if what is not None:
                names = ", ".join(sorted(origin.pricers))
                logger.warning("processes that jobs of pricer %s left behind have %s; killing them", names, what)
                kill_lineage([process.life for process in processes], lambda mark: False, KILL_S)

    def _memory_of(self, running: Running) -> MemoryUse:
        known = self._memory.get(running.attempt)
        return known if known is not None and known.running is running else MemoryUse(running)

    def _kill(self, running: Running, processes: Sequence[Process]) -> bool:
        """Kill these processes, and those that they start meanwhile; return whether there was any."""
        lives = [process.life for process in processes if not process.is_zombie]
        if lives:
            # Helpers that other jobs use have the mark of the job that started them.
            mark = f"{self._mark_prefix}{running.pricer}|{running.attempt.name}"
            by_mark = not self._helpers.has_shared(running.pricer)
            kill_lineage(lives, lambda found: by_mark and found == mark, KILL_S)
        return bool(lives)


def _excess(processes: Sequence[Process], pricers: Sequence[Pricer]) -> str | None:
    """What processes have beyond the largest limit of the pricers whose jobs may have started them, as text."""
    if not pricers:
        return None
    most = max(each.processes or USUAL_PROCESSES for each in pricers)
    if (count := sum(max(1, process.threads) for process in processes)) > most:
        return f"{count} processes and threads, and their limit is {most}"
    limits = [each.memory for each in pricers if each.memory is not None]
    if len(limits) < len(pricers):
        return None
    files = open_files_in_memory((process.pid for process in processes), (), 0)
    if (used := memory_of(processes, files, max(limits))) > max(limits):
        return f"{used} bytes of memory, and their limit is {max(limits)}"
    return None


def _too_many(count: int, limit: int) -> str:
    return (
        f"killed for having {count} processes and threads; its limit is {limit}. If it needs more, set a larger "
        "`processes` for the pricer"
    )
