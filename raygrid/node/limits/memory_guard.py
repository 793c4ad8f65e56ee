"""Watches the memory of the machine and of its cgroups, and kills the pricer that grew most under pressure.

Of all agents of a grid on one machine (and in one cgroup), the agent that holds a lock decides for all of them. Each
agent raises the kernel's out-of-memory score of its own pricers and records why they were killed. One thread; while
memory is plentiful it reads two small files a second.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import BaseFileLock

from raygrid.models import Outcome
from raygrid.node.attempt.usage import Usage
from raygrid.node.limits.kill_reasons import KillReason, KillReasons, leave_kill_reason
from raygrid.node.limits.memory_use import memory_of_kernel, unmapped_memory
from raygrid.node.limits.pressure import PressureHistory, Victim, choose, is_watched, next_look_s
from raygrid.node.limits.process_trees import ProcessTree, trees
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog
from raygrid.system.lock import NO_LOCKS, try_lock
from raygrid.system.machine import machine_id
from raygrid.system.memory import Gauge, Memory
from raygrid.system.oom_score import AFTER_S, OomScores
from raygrid.system.proc import life_of, own_cgroup_lines, process_table
from raygrid.system.process_memory import open_files_in_memory, resident_parts

logger = logging.getLogger(__name__)

BUSY_S = 0.25  # between looks while pricers run, to raise their scores
IDLE_S = 1.0
SNAPSHOT_S = 1.0
GONE_S = 2.0  # a killed pricer may take this long to free its memory
WARN_S = 60.0


class MemoryGuard:
    """The guard of one agent; `close` ends its thread.

    `root` is the node's directory, whose parent contains those of the grid's other nodes on this machine; `incarnation`
    is this life of the agent. `reserve` are the bytes of memory to keep free, None for the default share. `decides`
    states whether this agent decides for the machine.
    """

    def __init__(
        self,
        node_id: str,
        root: Path,
        incarnation: str,
        mark_prefix: str,
        watchdog: Watchdog,
        reserve: int | None,
        gauge: Gauge | None = None,
    ) -> None:
        self._node_id = node_id
        self._nodes = root.parent
        self._mark_prefix = mark_prefix
        self._watchdog = watchdog
        self.reserve = reserve
        self._gauge = gauge or Gauge()
        self.total = self._gauge.total
        self._kill_reasons = KillReasons(root, incarnation)
        self._scores = OomScores()
        self._history = PressureHistory()
        self.decides = False
        self._lock: BaseFileLock | None = None
        self._next_look = self._next_warning = 0.0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="raygrid-memory", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._kill_reasons.open()
        self._thread.start()

    def close(self) -> None:
        """Stop; another agent of the machine decides from now on."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=10)
        if self._lock is not None:
            self._lock.release()
        self.decides = False

    def kill_reason(self, running: Running, usage: Usage) -> KillReason | None:
        """Why a pricer that died of SIGKILL was killed for lack of memory; None if it was not."""
        reason = self._kill_reasons.of(running.pid, running.started)
        if reason is None and self._kill_reasons.kernel_killed_lately():
            peak = usage.max_rss_bytes
            size = "" if peak is None else f"; the largest of the pricer's processes used {_size(peak)}"
            message = f"killed by the kernel of node {self._node_id}, which had no memory left{size}"
            return KillReason(message, crowded=any(tree.pid != running.pid for tree in self._trees()))
        return reason

    # --- the thread -----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        wait_s = 0.0
        while not self._closed.wait(wait_s):
            try:
                wait_s = self._look()
            except Exception:  # must not end the thread
                logger.exception("node %s: the memory could not be checked; trying again", self._node_id)
                wait_s = IDLE_S

    def _look(self) -> float:
        """Look once; return the seconds until the next look."""
        now = time.monotonic()
        running = [each for each in self._watchdog.all() if each.pid and not each.ended]
        self._scores.raise_for(each.pid for each in running if now - each.started > AFTER_S)
        if now >= self._next_look:
            self._kill_reasons.look_at_kernel()
            self._next_look = now + (self._decide(now) if self._decides() else IDLE_S)
        return max(0.0, min(self._next_look - time.monotonic(), BUSY_S if running else IDLE_S))

    def _decides(self) -> bool:
        """Whether this agent decides for the machine; it then does so until it ends."""
        if not self.decides:
            try:
                cgroup = hashlib.sha256(own_cgroup_lines()).hexdigest()[:8]
                self._lock = try_lock(self._nodes / f"memory-{machine_id()}-{cgroup}.lock")
                self.decides = self._lock is not None
            except OSError as error:
                if error.errno in NO_LOCKS:
                    logger.warning(
                        "node %s: files cannot be locked: %s; under memory pressure it decides without other agents",
                        self._node_id,
                        error,
                    )
                    self.decides = True
        return self.decides

    def _decide(self, now: float) -> float:
        memory = self._gauge.look(self.reserve)
        if memory is None:
            return IDLE_S
        if not is_watched(memory):
            self._history.clear()
        elif memory.headroom < 0 or self._history.last_at is None or now - self._history.last_at >= SNAPSHOT_S:
            found = self._trees()
            self._add_files_in_memory(found)
            sizes = [tree.size for tree in found]
            self._history.add(now, sizes)
            victim = choose(memory, sizes, self._history)
            if victim is not None:
                tree = next(tree for tree in found if tree.pid == victim.size.pid)
                self._kill(tree, victim, memory)
                return 0.0
            if memory.headroom < 0:
                self._warn(memory, sum(size.rss for size in sizes))
                return IDLE_S
        return next_look_s(memory)

    def _trees(self) -> list[ProcessTree]:
        own = {
            each.pid: f"{self._mark_prefix}{each.pricer}|{each.attempt.name}"
            for each in self._watchdog.all()
            if each.pid and not each.ended
        }
        table = list(process_table())
        orphans = self._watchdog.helpers.attempts_of_orphans(table)
        return trees(table, own, self._mark_prefix, str(self._nodes), orphans)

    def _add_files_in_memory(self, found: Sequence[ProcessTree]) -> None:
        """Add what pricers hold in memory files, a private /dev/shm and System V segments, without mapped pages."""
        private = {each.pid: unmapped_memory(each) for each in self._watchdog.all()}
        kernel = {each.pid: memory_of_kernel(each) for each in self._watchdog.all()}
        for tree in found:
            tree.rss += kernel.get(tree.pid, 0) if tree.is_own else 0
            files = open_files_in_memory(tree.members, (), 0) + (private.get(tree.pid, 0) if tree.is_own else 0)
            if files:
                mapped = sum(resident_parts(pid, 0).shared for pid in tree.members)
                tree.rss += max(0, files - mapped)

    def _kill(self, tree: ProcessTree, victim: Victim, memory: Memory) -> None:
        """Kill a pricer with all processes that it started, and wait until its memory is free."""
        message = (
            f"killed because node {self._node_id} ran short of memory: the pricer's processes used {_size(tree.rss)}"
            + (f" ({_size(victim.grown)} more than {victim.over_s:.0f} s before)" if victim.over_s >= 1 else "")
            + f", and of the {_size(memory.total)} of {memory.of} {_size(max(0, memory.available))} were left, less "
            f"than the {_size(memory.reserve)} that are kept free (node.memory_reserve)"
        )
        if tree.is_own:
            running = next((each for each in self._watchdog.all() if each.pid == tree.pid), None)
            if running is None:
                return  # it has just ended
            running.crowded = victim.crowded
            running.fail(Outcome.MEMORY_PRESSURE, message)
        elif not leave_kill_reason(str(self._nodes), tree.mark, tree.pid, KillReason(message, victim.crowded)):
            logger.warning("process %d (%s): its agent does not get the kill reason; killing it", tree.pid, tree.mark)
        logger.warning("%s: %s", tree.mark.rpartition("|")[2], message)
        for pid in tree.members:
            if pid != tree.pid or not tree.is_own:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + GONE_S
        while any(map(life_of, tree.members)) and time.monotonic() < until:
            self._closed.wait(0.02)

    def _warn(self, memory: Memory, used: int) -> None:
        if time.monotonic() >= self._next_warning:
            self._next_warning = time.monotonic() + WARN_S
            logger.warning(
                "node %s: of the %s of %s only %s are left, but all pricers together use only %s; killing none; find "
                "the other program that uses the memory",
                self._node_id,
                *(_size(memory.total), memory.of, _size(max(0, memory.available)), _size(used)),
            )


def _size(size: int) -> str:
    """A number of bytes in GB or MB."""
    return f"{size / 1024**3:.1f} GB" if size >= 1024**3 else f"{size / 1024**2:.0f} MB"
