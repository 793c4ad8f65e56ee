"""The watchdog of a node: holds running pricers to their limits and kills what outlives its attempt.

One thread for the whole node. It wakes often only while something runs that has a limit to check.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from raygrid.config import Node
from raygrid.models import AttemptId, Outcome
from raygrid.node.helpers import Helpers
from raygrid.node.kept import Kept
from raygrid.node.lineage import Root
from raygrid.node.processes import (
    ChildrenOf,
    Process,
    ancestor,
    has_exited,
    own_thread_has_children,
    process_table,
    signal_group,
)

logger = logging.getLogger(__name__)

TICK_S = 0.1
SWEEP_S = 1.0
OTHER_LIMITS = frozenset({Outcome.MEMORY_LIMIT, Outcome.OUTPUT_LIMIT})


@dataclass(slots=True)
class Running:
    """A pricer that is about to run or runs: how to reach it, its limits, and why it was killed if it was.

    `pid` is 0 until it is spawned. `started` and `kill_at` are on the monotonic clock. `crowded` says, where it was
    killed for want of memory, whether other pricers ran on the machine. `paths` are where its files are; `given` bytes
    of what is there are not its own: input, shared data, and what earlier jobs of a warm process left.
    """

    attempt: AttemptId
    started: float
    timeout_s: float
    memory: int | None
    output: int
    paths: tuple[str, ...]
    pid: int = 0
    pricer: str = ""
    killed_for: Outcome | None = None
    message: str | None = None
    kill_at: float | None = None
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    crowded: bool = False
    given: int = 0

    def spawned(self, pid: int) -> None:
        """Note the pid; a stop that came before takes effect now."""
        with self.lock:
            self.pid = pid
            if self.killed_for is not None:
                self._signal()

    def stop(self, why: Outcome, message: str, grace_s: float) -> None:
        """Ask the whole session to end (SIGTERM); the watchdog makes it (SIGKILL) after the grace.

        From here on the attempt ends for this reason, whatever exit code follows: a program that shuts down cleanly
        exits 0 with half its work done. A process that had ended before the signal keeps its own end.
        """
        with self.lock:
            if self.ended or self.killed_for is not None or (self.pid and has_exited(self.pid)):
                return
            self._end_for(why, message, grace_s)

    def fail(self, why: Outcome, message: str) -> None:
        """Kill the whole session for something that was seen of it; this counts even if its process has just ended."""
        with self.lock:
            if not self.ended and self.killed_for is None:
                self._end_for(why, message, 0)

    def _end_for(self, why: Outcome, message: str, grace_s: float) -> None:
        now = time.monotonic()
        if why in OTHER_LIMITS and self.is_past_its_time(now):  # which the watchdog has not noticed yet
            why, message = Outcome.TIMEOUT, self.past_its_time
        self.killed_for, self.message = why, message
        self.kill_at = now + grace_s
        if self.pid:
            self._signal()

    def _signal(self) -> None:
        has_time = self.kill_at is not None and self.kill_at > time.monotonic()
        signal_group(self.pid, signal.SIGTERM if has_time else signal.SIGKILL)

    def is_past_its_time(self, now: float) -> bool:
        """Whether it has run for as long as it may."""
        return now >= self.started + self.timeout_s

    @property
    def past_its_time(self) -> str:
        """The message of an attempt that ended for its time limit."""
        return f"killed at its wall-time limit of {self.timeout_s:g} s"

    def kill(self) -> None:
        """End the whole session at once."""
        with self.lock:
            if self.pid and not self.ended:
                signal_group(self.pid, signal.SIGKILL)

    def detach(self) -> bool:
        """Leave its process alone from now on, which outlives the attempt. Tells whether it had been told to end."""
        with self.lock:
            self.ended = True
            return self.killed_for is not None

    def never_began(self) -> bool:
        """A warm pricer died before it took the job; False where the job was stopped meanwhile and must not go on."""
        with self.lock:
            if self.killed_for is not None:
                return False
            self.pid = 0
            return True

    def end(self) -> None:
        """The pricer's own process has ended: kill what it left in its session, before its pid can be used anew."""
        with self.lock:
            self.ended = True
            signal_group(self.pid, signal.SIGKILL)


class Watchdog:
    """Watches the pricers of one agent. `close` ends its thread.

    Attributes:
        helpers: what it does with processes that jobs leave behind.
        bury: called once a second, to clear up after idle warm processes that have ended.

    Args:
        mark_prefix: what the marks of the agent's pricers begin with.
        settings: the node's settings, such as the time that a pricer has from SIGTERM to SIGKILL.
        own_process: whether this process is the agent's alone, so that an orphan it is given can only be a pricer's.
        shared: a directory that it has in common with the other agents of the grid on this machine.
    """

    def __init__(
        self, mark_prefix: str, settings: Node, *, own_process: bool = False, shared: Path | None = None
    ) -> None:
        self._running: dict[AttemptId, Running] = {}
        self._kept: dict[str, Kept] = {}  # by mark
        self._tools: set[int] = set()  # children of the agent that are no pricers
        self.helpers = Helpers(mark_prefix, self._roots, own_process=own_process, shared=shared)
        self.follow(settings)
        self._orphans = ChildrenOf(os.getpid())
        self._suspects: set[int] = set()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self.bury: Callable[[], None] = lambda: None
        self._closed = False
        self._next_sweep = 0.0
        self._thread = threading.Thread(target=self._watch, name="raygrid-watchdog", daemon=True)

    def follow(self, settings: Node) -> None:
        """Use newer settings from now on."""
        self.grace_s = self.helpers.grace_s = settings.kill_grace_s
        self.helpers.linger_s, self.helpers.age_s = settings.helper_linger_s, settings.helper_age_s

    def start(self, tools: set[int]) -> None:
        """Begin; `tools` are children of the agent that are no pricers."""
        self._tools = tools
        self.helpers.start(tools)
        self._thread.start()

    def close(self) -> None:
        """Stop watching, and end what jobs left behind."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=10)
        self.helpers.close()
        self._orphans.close()

    def watch(self, running: Running) -> None:
        """Hold a pricer to its limits until `release`."""
        with self._lock:
            self._running[running.attempt] = running

    def release(self, running: Running) -> None:
        """The pricer has ended."""
        with self._lock:
            self._running.pop(running.attempt, None)

    def keep(self, kept: Kept) -> None:
        """Know a warm process, before it is spawned, until `let_go`."""
        with self._lock:
            self._kept[kept.mark] = kept

    def let_go(self, kept: Kept) -> None:
        """It has ended, and was reaped."""
        with self._lock:
            self._kept.pop(kept.mark, None)

    def sees_nobody_astray(self, pricer: str) -> bool:
        """Whether nothing is left that a job of this pricer started, as far as any of its jobs is known to have ended.

        Called by the thread that had spawned the pricer, when that was reaped. Known helpers of other pricers do not
        count: they were started by other jobs.
        """
        with self._lock:
            known = self._tools | {each.pid for each in self._kept.values()}
        orphans = self._orphans.now()
        if orphans is None or not (orphans <= known or self.helpers.are_others(orphans - known, pricer)):
            return False
        if not own_thread_has_children():  # quickly told, and so for most pricers
            return True
        with contextlib.closing(ChildrenOf(threading.get_native_id())) as own:
            children = own.now()
        return children is not None and children <= known

    def find(self, attempt: AttemptId) -> Running | None:
        """The running pricer of an attempt."""
        with self._lock:
            return self._running.get(attempt)

    def all(self) -> list[Running]:
        """Everything that runs."""
        with self._lock:
            return list(self._running.values())

    def _watch(self) -> None:
        self._next_sweep = time.monotonic() + SWEEP_S
        while not self._wake.wait(TICK_S if self._running else SWEEP_S):
            if self._closed:
                return
            try:
                self._look()
            except Exception:  # one look that fails must not be the last one: nothing else holds the limits
                logger.exception("a look of the watchdog failed")

    def _look(self) -> None:
        now = time.monotonic()
        for running in self.all():
            self._check_time(running, now)
        sweep = now >= self._next_sweep
        limited = any(running.memory is not None for running in self.all())
        table = list(process_table()) if sweep or limited else []
        if limited:
            self._check_memory(table)
        if sweep:
            self._next_sweep = now + SWEEP_S
            self._look_at_strays(table)

    def _check_time(self, running: Running, now: float) -> None:
        if running.kill_at is not None:
            if now >= running.kill_at:
                running.kill()
        elif running.is_past_its_time(now):
            running.stop(Outcome.TIMEOUT, running.past_its_time, self.grace_s)

    def _check_memory(self, table: list[Process]) -> None:
        used: dict[int, int] = {}
        parents = {process.pid: process.parent for process in table}
        pids = {running.pid for running in self.all()}
        for process in table:
            root = process.session
            if root not in pids:  # it may have left the session; it still descends from the pricer
                root = ancestor(process.pid, parents, pids)
            used[root] = used.get(root, 0) + process.rss_bytes
        for running in self.all():
            rss = used.get(running.pid, 0)
            if running.pid and running.memory is not None and rss > running.memory:
                message = f"killed for using {rss} bytes of memory; its limit is {running.memory}"
                running.stop(Outcome.MEMORY_LIMIT, message, 0)

    def _look_at_strays(self, table: list[Process]) -> None:
        """See to descendants that lost their parent: `helpers.py` ends those that must go; the dead are reaped here.

        They are children of the agent by now (it is a subreaper). A pricer itself must never be reaped here: its runner
        waits for it, and it is a child of the agent for a moment before its runner has noted its pid.
        """
        me, my_session = os.getpid(), os.getsid(0)
        with self._lock:
            kept = dict(self._kept)
        self._look_at_kept(kept, table)
        self.bury()
        self.helpers.look(table)
        tracked = self._tools | {each.pid for each in self.all()} | {each.pid for each in kept.values()}
        suspects: set[int] = set()
        for process in table:
            if not process.is_zombie or process.parent != me or process.session == my_session:
                continue
            if process.pid in tracked:
                continue
            if process.session == process.pid and process.pid not in self._suspects:
                suspects.add(process.pid)  # perhaps a pricer just spawned; the next sweep knows
                continue
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
        self._suspects = suspects

    def _roots(self) -> list[Root]:
        """What the agent has spawned for pricers, or is about to spawn."""
        with self._lock:
            running, kept = list(self._running.values()), list(self._kept.values())
        roots = [Root(each.pid, each.pricer, name, name) for each in running for name in (_name(each.attempt),)]
        return roots + [
            Root(each.pid, each.pricer, each.mark, "" if each.attempt is None else _name(each.attempt)) for each in kept
        ]

    @staticmethod
    def _look_at_kept(kept: dict[str, Kept], table: list[Process]) -> None:
        children: dict[int, set[int]] = {each.pid: set() for each in kept.values()}
        for process in table:
            if process.parent in children and not process.is_zombie:
                children[process.parent].add(process.pid)
        for each in kept.values():
            if each.pid in children and each.pid:  # one that has got its pid meanwhile is looked at the next time
                each.look(frozenset(children[each.pid]))


def _name(attempt: AttemptId) -> str:
    return f"{attempt.job_id}.{attempt.number}"
