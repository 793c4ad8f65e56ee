"""Ends the processes that jobs leave behind on a node, except for helpers while they may be used.

The watchdog passes each table of processes. `lineage.py` finds the origin of each process, `rule.py` decides, and a
thread ends the processes that must end, while `gate.py` holds the pricer's next attempts back. When the agent closes,
all of them are ended. Each process is reported to the reaper, which ends it if the agent is killed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from raygrid.node.helpers.claims import Claims
from raygrid.node.helpers.gate import HelperGate
from raygrid.node.helpers.lineage import Lineage, ProcessOrigin, SpawnedPricer, Trace
from raygrid.node.helpers.rule import WINE, HelperActions, LeftBehind, decide, is_allowed
from raygrid.system.killing import end_children, signal_process
from raygrid.system.proc import Life, Process, executable_of, name_of, process_table

logger = logging.getLogger(__name__)

KILL_STEP_S = 0.01
HOLD_S = 2.0  # new attempts of a pricer are held back for so long until the running ones end, to renew its helpers
HOLD_AGAIN_S = 30.0  # the next try after that was too short
CLEAN_LOOKS = 2
UNSEEN_S = 1.0
PATIENCE_S = 10.0
CLOSE_S = 10.0


class Helpers:
    """The helpers of one node; thread-safe. `close` ends them all.

    The arguments are those of the watchdog; `roots` returns the processes that the agent has spawned for pricers or is
    about to spawn.

    Attributes:
        linger_s: how long helpers outlive the last attempt of their pricer.
        age_s: the age at which they are renewed.
        grace_s: the time between SIGTERM and SIGKILL for a helper.
        retire: ends the idle warm processes of pricers.
        leftovers: the orphans of the last table and all below them, without helpers that other attempts use.
        record: gets the processes that pricers started; the reaper ends them if this process is killed.
    """

    def __init__(
        self,
        mark_prefix: str,
        roots: Callable[[], Sequence[SpawnedPricer]],
        *,
        own_process: bool,
        shared: Path | None = None,
    ) -> None:
        self.linger_s = 3.0
        self.age_s = 3600.0
        self.grace_s = 2.0
        self.retire: Callable[[frozenset[str]], None] = lambda names: None
        self.record: Callable[[Collection[Life]], None] = lambda processes: None
        self.gate = HelperGate(PATIENCE_S, Claims(shared))
        self._own_process = own_process
        self._roots = roots
        self._non_pricers: set[int] = set()
        self._lineage = Lineage(mark_prefix, own_process=own_process)
        self._looking = threading.Lock()
        self._owners: dict[int, frozenset[str]] = {}  # by pid: the pricers that each orphan may be of
        self._attempts: dict[Life, str] = {}
        self.leftovers: Sequence[tuple[Process, ProcessOrigin]] = ()
        self._left_strays: set[str] = set()
        self._unsearched: set[str] = set()  # pricers with attempts that may have left what no table has shown
        self._beyond_reach: set[Life] = set()
        self._hold_again_at: dict[frozenset[str], float] = {}
        self._wanted = HelperActions()
        self._work = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self, non_pricers: set[int]) -> None:
        """Start; `non_pricers` are children of the agent that are not pricers."""
        self._non_pricers = non_pricers

    def are_others(self, orphans: set[int], name: str) -> bool:
        """Whether each of these orphans is known to be a helper of other pricers."""
        owners = self._owners
        return all((of := owners.get(pid)) is not None and name not in of for pid in orphans)

    def attempts_of_orphans(self, table: Sequence[Process] | None = None) -> Mapping[Life, str]:
        """By process that left its pricer's session and ancestors: the name of the one attempt that started it.

        The attempt may have ended. A process that several attempts may have started is missing, and so is a helper that
        its pricer's settings name, or that belongs to wine: other attempts use it. Without a table, as of the last one.
        """
        if table is not None:
            self._trace(table, is_look=False)
        return self._attempts

    def has_shared(self, pricer: str) -> bool:
        """Whether a pricer that has run shares helpers with later jobs by its settings, or under wine."""
        return self.gate.has_used_wine(pricer) or any(self.gate.rules(pricer))

    def left_strays(self, pricer: str, attempt: str) -> None:
        """Note that an attempt has ended and may have left processes behind that no table shows yet."""
        self._left_strays.add(attempt)
        self._unsearched.add(pricer)

    def look(self, table: Sequence[Process]) -> None:
        """Examine a current table of processes: kill what no job may use, and let the thread end due helpers."""
        left = self._judged(self._trace(table))
        self.gate.release_idle(self.linger_s)
        if not left and not self._unsearched:
            return
        idle_s = self.gate.idle_s()
        actions = decide(left, idle_s, linger_s=self.linger_s, age_s=self.age_s)
        self._kill(actions.kill, table)
        now = time.monotonic()
        renew = tuple(group for group in actions.renew if self._hold_again_at.get(group, 0.0) <= now)
        clear = {*actions.clear, *self._to_search(idle_s)}
        if clear or renew:
            self._ask(HelperActions(clear=tuple(clear), renew=renew))

    def _to_search(self, idle_s: Mapping[str, float]) -> Iterator[frozenset[str]]:
        """Groups of pricers that may have left a process that forks so quickly that no table shows it."""
        for name in tuple(self._unsearched):
            group = self.gate.sharing(frozenset((name,))) | {name}
            if all(idle_s.get(each, self.linger_s) >= self.linger_s for each in group):
                yield group

    def close(self) -> None:
        """End all processes that jobs left behind; no attempt may run or start."""
        with self._work:
            self._closed = True
            self._work.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(timeout=self.grace_s + CLOSE_S)
        if self._own_process:
            end_children(lambda pid: pid not in self._non_pricers, self.grace_s, CLOSE_S)
        else:
            self._end(None, CLOSE_S)

    # --- looking ----------------------------------------------------------------------------------------------------

    def _trace(self, table: Sequence[Process], *, is_look: bool = True) -> Trace:
        with self._looking:
            lately, ended = self.gate.ran_lately(is_look=is_look), frozenset(self._left_strays)
            traced = self._lineage.trace(table, self._roots(), self._non_pricers, lately, ended)
            self._left_strays -= ended
            me = os.getpid()
            self.leftovers = [each for each in traced.left if not self._is_shared(*each)]
            self._attempts = {
                process.life: next(iter(origin.attempts))
                for process, origin in self.leftovers
                if len(origin.attempts) == 1
            }
            self._owners = {
                process.pid: self.gate.sharing(origin.pricers)
                for process, origin in traced.left
                if process.parent == me and origin.pricers
            }
        for process in traced.zombies:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
        self.record(traced.below)
        return traced

    def _judged(self, traced: Trace) -> list[LeftBehind]:
        if not traced.left:
            return []
        running = {root.attempt for root in self._roots()}
        allowed: set[int] = set()
        left = []
        for process, origin in traced.left:  # a parent comes before its children, which are allowed if it is
            if process.parent in allowed or self._is_allowed(process, origin):
                allowed.add(process.pid)
            if process.life in self._beyond_reach:
                continue
            left.append(
                LeftBehind(
                    process.pid,
                    process.started,
                    process.age_s,
                    self.gate.sharing(origin.pricers),
                    process.pid in allowed,
                    not origin.attempts.isdisjoint(running),
                )
            )
        return left

    def _is_allowed(self, process: Process, origin: ProcessOrigin) -> bool:
        rules = [rule for name in origin.pricers for rule in self.gate.rules(name)]
        if any(rule is None for rule in rules):
            return True
        if not any(rules):
            return False
        executable, name = executable_of(process.pid), name_of(process.pid)
        return any(is_allowed(rule, executable, name) for rule in rules)

    def _is_shared(self, process: Process, origin: ProcessOrigin) -> bool:
        """Whether a process is a helper that the settings of its pricer name, or a part of wine."""
        rules = {rule for name in origin.pricers for rule in self.gate.rules(name) if rule}
        if any(self.gate.has_used_wine(name) for name in origin.pricers):
            rules.add((WINE,))
        return bool(rules) and any(is_allowed(rule, executable_of(process.pid), name_of(process.pid)) for rule in rules)

    # --- ending -----------------------------------------------------------------------------------------------------

    def _ask(self, actions: HelperActions) -> None:
        with self._work:
            if self._closed:
                return
            self._wanted = actions
            if self._thread is None:
                self._thread = threading.Thread(target=self._work_on, name="raygrid-helpers", daemon=True)
                self._thread.start()
            self._work.notify_all()

    def _work_on(self) -> None:
        while True:
            with self._work:
                while not (self._closed or self._wanted.clear or self._wanted.renew):
                    self._work.wait()
                if self._closed:
                    return
                wanted, self._wanted = self._wanted, HelperActions()
            try:
                for group in wanted.clear:
                    self._clear(group)
                for group in wanted.renew:
                    self._renew(group)
            except Exception:  # must not end the thread
                logger.exception("helper processes could not be ended; trying again")

    def _clear(self, group: frozenset[str]) -> None:
        """End the helpers of pricers if these are still idle."""
        if self.gate.close(group, self.linger_s):
            self._end_and_open(group)
            self._unsearched -= group

    def _renew(self, group: frozenset[str]) -> None:
        """End the helpers of pricers that are in use, between two attempts."""
        if not self.gate.hold(group, HOLD_S, lambda: self.retire(group)):
            self._hold_again_at[group] = time.monotonic() + HOLD_AGAIN_S
            logger.warning(
                "pricer %s: its helper processes are too old or too many, but in use; trying again in %g s",
                ", ".join(sorted(group)),
                HOLD_AGAIN_S,
            )
            return
        self._end_and_open(group)

    def _end_and_open(self, group: frozenset[str]) -> None:
        try:
            self._end(group)
        finally:
            self.gate.open(group)

    def _end(self, group: frozenset[str] | None, within_s: float = math.inf) -> None:
        """Send SIGTERM to helpers of these pricers (or all), SIGKILL after the grace; return when they have ended."""
        began = time.monotonic()
        asked: set[Life] = set()
        clean = 0
        while time.monotonic() < began + within_s and not (self._closed and within_s == math.inf):
            table = list(process_table())
            traced = self._trace(table)
            found = [each for each in self._judged(traced) if group is None or each.pricers <= group]
            if not found and not traced.zombies:
                clean += 1
                if clean == CLEAN_LOOKS:  # during the first look, a process may have been starting another
                    # A process that forks quickly may be in no table.
                    end_children(self._belongs_to(group), 0.0, UNSEEN_S)
                    return
                continue
            clean = 0
            if time.monotonic() >= began + self.grace_s:
                self._kill(found, table)
            else:
                for each in found:
                    if (life := Life(each.pid, each.started)) not in asked:
                        asked.add(life)
                        signal_process(each.pid, each.started, signal.SIGTERM)
            time.sleep(KILL_STEP_S)

    def _belongs_to(self, group: frozenset[str] | None) -> Callable[[int], bool]:
        """A function: whether these pricers, of which no attempt runs, left a child of this process behind."""
        spared = self._non_pricers | {root.pid for root in self._roots()}

        def belongs(pid: int) -> bool:
            if pid in spared:
                return False
            pricer, is_marked = self._lineage.pricer_by_mark(pid)
            if is_marked:
                return pricer is not None and (group is None or pricer in group)
            if not self._own_process:
                return False
            # Checked last, because an attempt registers before it spawns its pricer, which at first has no environment.
            return all(idle for name, idle in self.gate.idle_s().items() if group is None or name not in group)

        return belongs

    def _kill(self, doomed: Iterable[LeftBehind], table: Iterable[Process]) -> None:
        if not (doomed := list(doomed)):
            return
        groups = {process.pid: process.group for process in table}
        spared = {root.pid for root in self._roots()}  # a process with a forged mark may be in its pricer's group
        for each in doomed:
            group = groups.get(each.pid, 0)
            if not signal_process(each.pid, each.started, signal.SIGKILL, 0 if group in spared else group):
                self._beyond_reach.add(Life(each.pid, each.started))
                logger.error("process %d, left behind by a job, belongs to another user; leaving it alone", each.pid)
