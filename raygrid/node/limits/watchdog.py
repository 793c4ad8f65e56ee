"""The watchdog of a node: enforces time limits and those of `process_limits.py`, and ends processes that jobs left.

One thread for the whole node, which wakes often only while a pricer runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from raygrid.models import AttemptId, Outcome
from raygrid.node.helpers.lineage import SpawnedPricer
from raygrid.node.helpers.watch import Helpers
from raygrid.node.limits.process_limits import ProcessLimits
from raygrid.node.limits.running import Running
from raygrid.node.warm.record import WarmProcessRecord
from raygrid.settings.sections import Node
from raygrid.system.proc import ChildrenOf, Process, below, process_table, seconds_since_boot
from raygrid.system.processes import own_thread_has_children

logger = logging.getLogger(__name__)

TICK_S = 0.1
_TICK_OF_PROC_S = 1 / os.sysconf("SC_CLK_TCK")
SWEEP_S = 1.0


class Watchdog:
    """Watches the pricers of one agent. `close` ends its thread.

    Args:
        mark_prefix: what the marks of the agent's pricers begin with.
        settings: the node's settings, such as the time from SIGTERM to SIGKILL.
        own_process: whether this process runs only the agent, so that every orphan comes from a pricer.
        shared: a directory that the agents of the grid on this machine share.

    Attributes:
        reap_ended: called once a second; reaps idle warm processes that have ended.
    """

    def __init__(
        self, mark_prefix: str, settings: Node, *, own_process: bool = False, shared: Path | None = None
    ) -> None:
        self._running: dict[AttemptId, Running] = {}
        self._warm: dict[str, WarmProcessRecord] = {}  # by mark
        self._non_pricers: set[int] = set()  # children of the agent that are not pricers
        self.helpers = Helpers(mark_prefix, self._roots, own_process=own_process, shared=shared)
        self._limits = ProcessLimits(mark_prefix, self.helpers)
        self.follow(settings)
        self._orphans = ChildrenOf(os.getpid())
        self._suspects: set[int] = set()
        self._lock = threading.Lock()
        self.reap_ended: Callable[[], None] = lambda: None
        self._closed = threading.Event()
        self._next_sweep = 0.0
        self._thread = threading.Thread(target=self._watch, name="raygrid-watchdog", daemon=True)

    def follow(self, settings: Node) -> None:
        """Apply newer settings."""
        self.grace_s = self.helpers.grace_s = settings.kill_grace_s
        self.helpers.linger_s, self.helpers.age_s = settings.helper_linger_s, settings.helper_age_s

    def start(self, non_pricers: set[int]) -> None:
        """Start; `non_pricers` are children of the agent that are not pricers."""
        self._non_pricers = non_pricers
        self.helpers.start(non_pricers)
        self._thread.start()

    def close(self) -> None:
        """Stop, and end what jobs left behind."""
        self._closed.set()
        self._thread.join(timeout=10)
        self.helpers.close()
        self._limits.close()
        self._orphans.close()

    def watch(self, running: Running) -> None:
        """Enforce a pricer's limits until `release`."""
        running.watched_at = seconds_since_boot()
        with self._lock:
            self._running[running.attempt] = running

    def release(self, running: Running) -> None:
        """Stop watching a pricer, which has ended."""
        with self._lock:
            self._running.pop(running.attempt, None)
        self._limits.released(running)

    def add_warm(self, record: WarmProcessRecord) -> None:
        """Add a warm process before it is spawned."""
        with self._lock:
            self._warm[record.mark] = record

    def remove_warm(self, record: WarmProcessRecord) -> None:
        """Remove a warm process after it was reaped."""
        with self._lock:
            self._warm.pop(record.mark, None)

    def has_no_stray(self, pricer: str, attempt: AttemptId) -> bool:
        """Whether no process is left that an ended job of this pricer started; helpers of other pricers do not count.

        Called by the thread that spawned the pricer, after the pricer was reaped.
        """
        if self._finds_no_stray(pricer):
            return True
        self.helpers.left_strays(pricer, attempt.name)
        return False

    def _finds_no_stray(self, pricer: str) -> bool:
        with self._lock:
            known = self._non_pricers | {each.pid for each in self._warm.values()}
            known |= {each.pid for each in self._running.values() if not each.ended}  # they share the thread
        orphans = self._orphans.now()
        if orphans is None or not (orphans <= known or self.helpers.are_others(orphans - known, pricer)):
            return False
        if not own_thread_has_children():  # a quick check that succeeds for most pricers
            return True
        with contextlib.closing(ChildrenOf(threading.get_native_id())) as own:
            children = own.now()
        return children is not None and children <= known

    def find(self, attempt: AttemptId) -> Running | None:
        """The running pricer of an attempt, if there is one."""
        with self._lock:
            return self._running.get(attempt)

    def pids_of(self, running: Running) -> list[int]:
        """The processes of a running pricer, up to a second ago."""
        return self._limits.pids_of(running)

    def all(self) -> list[Running]:
        """All running pricers."""
        with self._lock:
            return list(self._running.values())

    def stop_all(self) -> None:
        """Kill all running pricers with the outcome `cancelled`, because the agent is stopping."""
        for running in self.all():
            running.stop(Outcome.CANCELLED, "the node agent is stopping", 0)

    def _watch(self) -> None:
        self._next_sweep = time.monotonic() + SWEEP_S
        while not self._closed.wait(TICK_S if self._running or self._limits.is_killing else SWEEP_S):
            try:
                self._look()
            except Exception:  # must not end the thread: nothing else enforces the limits
                logger.exception("the watchdog could not check the running pricers; trying again")

    def _look(self) -> None:
        now = time.monotonic()
        running = self.all()
        for each in running:
            self._check_time(each, now)
        sweep = now >= self._next_sweep
        if not (sweep or self._limits.needs_table(running)):
            return
        if sweep:
            with self._lock:
                warm = list(self._warm.values())
            for record in warm:
                record.before_table()
        table = list(process_table())
        if sweep:
            self._next_sweep = now + SWEEP_S
            self._look_at_strays(table)
        self._limits.check(self.all(), table, is_traced=sweep)

    def _check_time(self, running: Running, now: float) -> None:
        if running.kill_at is not None:
            if now >= running.kill_at:
                running.kill()
        elif running.is_past_its_time(now):
            running.stop(Outcome.TIMEOUT, running.past_its_time, self.grace_s)

    def _look_at_strays(self, table: list[Process]) -> None:
        """Handle orphaned descendants: `helpers` ends those that must end; zombies are reaped here.

        The agent is a subreaper, so that they are its children. A pricer itself must never be reaped here: its runner
        waits for it, and has not noted its pid in the moment after the spawn.
        """
        me, my_session = os.getpid(), os.getsid(0)
        with self._lock:
            warm = dict(self._warm)
        self._look_at_warm(warm, table)
        self.reap_ended()
        self.helpers.look(table)
        tracked = self._non_pricers | {each.pid for each in self.all()} | {each.pid for each in warm.values()}
        suspects: set[int] = set()
        for process in table:
            if not process.is_zombie or process.parent != me or process.session == my_session:
                continue
            if process.pid in tracked:
                continue
            if process.session == process.pid and process.pid not in self._suspects:
                suspects.add(process.pid)  # it may be a pricer that was just spawned; reaped in the next sweep if not
                continue
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
        self._suspects = suspects

    def _roots(self) -> list[SpawnedPricer]:
        """The processes that the agent has spawned for pricers, or is about to spawn."""
        with self._lock:
            running, warm = list(self._running.values()), list(self._warm.values())
        now = seconds_since_boot() + _TICK_OF_PROC_S  # start times of processes are rounded down to a tick
        roots = [
            SpawnedPricer(each.pid, each.pricer, each.attempt.name, each.attempt.name, now - each.watched_at)
            for each in running
        ]
        return roots + [
            SpawnedPricer(
                each.pid, each.pricer, each.mark, each.attempt.name if each.attempt else "", now - each.watched_at
            )
            for each in warm
        ]

    @staticmethod
    def _look_at_warm(warm: dict[str, WarmProcessRecord], table: list[Process]) -> None:
        found = below([each.pid for each in warm.values() if each.pid], table)
        for each in warm.values():
            if each.pid in found:  # a process that has just got its pid is checked in the next sweep
                each.look(found[each.pid])
