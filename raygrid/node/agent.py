"""The node agent: accepts attempts, runs them in as many threads as it has slots, and reports their ends.

Plain Python: threads for the work, one method to wait for reports from an event loop. `actor.py` gives it to Ray.
Reports are numbered and kept until the leader has committed them, so that a leader that asks anew misses none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from uuid_utils import uuid4

from raygrid.blobs import BlobStore
from raygrid.config import Node, Pricer
from raygrid.core.events import AttemptOrder
from raygrid.errors import StaleTermError
from raygrid.models import INFRASTRUCTURE_OUTCOMES, AttemptId, AttemptReport, Definition, NodeState, Outcome
from raygrid.node import reaper
from raygrid.node.apart import Apart
from raygrid.node.cache import LocalShelf, ResultCache, Shelf
from raygrid.node.definitions import Definitions, lost_message
from raygrid.node.disk import DiskWatch
from raygrid.node.health import Health
from raygrid.node.killing import kill_lineage
from raygrid.node.leftovers import Leftovers
from raygrid.node.memory_guard import MemoryGuard
from raygrid.node.processes import become_subreaper
from raygrid.node.publisher import Publisher
from raygrid.node.runner import Finished, Runner
from raygrid.node.shared_data import SharedDataCache
from raygrid.node.slot_numbers import SlotNumbers
from raygrid.node.traffic import TrafficMeter
from raygrid.node.watchdog import Running, Watchdog
from raygrid.node.workspace import Workspace
from raygrid.ports import NodeReply
from raygrid.processors import usable_processors
from raygrid.pulse import Pulse

logger = logging.getLogger(__name__)

MOST_WAITING = 4_096
MOST_REPORTS = 4_096
REMEMBERED = 10_000
SHARED = ".helpers"  # beside the nodes' own directories: no node can have that name
CLOSE_S = 10.0
EARLIER_LIFE_S = 10.0  # how long to kill what an earlier life of the agent left
COLLECTORS = 2  # threads beyond the slots: they put results together while pricers run in all slots
SHORT_S = 0.02
FROZEN_S = 15.0  # well beyond the silence after which a leader has its jobs run elsewhere


class NodeAgent:
    """Runs attempts on one node.

    Args:
        node_id: the node's name in the grid.
        root: directory of this node's work; nobody else uses it.
        pricers: the configured pricers.
        settings: slots, cache sizes, grace.
        blobs: where inputs come from and results go.
        shelf: where cached results are kept.
        address: where parents reach this agent.
        deployed_at: stamp of the settings.
        own_process: whether this process is the agent's alone, and may be killed when it is frozen or hangs.
    """

    def __init__(
        self,
        node_id: str,
        root: Path,
        pricers: dict[str, Pricer],
        settings: Node,
        blobs: BlobStore,
        shelf: Shelf | None = None,
        address: str = "",
        deployed_at: float = 0.0,
        own_process: bool = False,
    ) -> None:
        self._own_process = own_process
        self._address = address
        self._deployed_at = deployed_at
        self.node_id = node_id
        self.incarnation = uuid4().hex
        self.slots = _slots(settings)
        self._root = root
        self._pricers = pricers
        self._definitions = Definitions(pricers, self._wake)
        self._settings = settings
        self._blobs = blobs
        self._mark_prefix = f"{root}|{self.incarnation}|"
        self._places = Workspace(root, self.incarnation)
        self._cache = ResultCache(shelf or LocalShelf(), settings.cache)
        self._traffic = TrafficMeter()
        self._publisher = Publisher(
            node_id, blobs, self._cache, self._deliver, lambda: bool(self._waiting), self._traffic
        )
        self._health = Health(node_id, self._places, blobs, self._publisher, self._wake)
        self._watchdog = Watchdog(self._mark_prefix, settings, own_process=own_process, shared=root.parent / SHARED)
        self._memory = MemoryGuard(
            node_id, root, self.incarnation, self._mark_prefix, self._watchdog, settings.memory_reserve
        )
        self._leftovers = Leftovers(root, node_id)
        self._left_over = 0  # number of the last report of an earlier life's attempts; 0 once they are settled
        self._apart = Apart(root.parent)
        self._disk = DiskWatch(self._watchdog, self._places, self._wake)
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._waiting: OrderedDict[AttemptId, AttemptOrder] = OrderedDict()
        self._held: dict[str, list[AttemptId]] = {}  # by job: the attempt that runs, then those that share its end
        self._wanted: dict[str, list[AttemptId]] = {}  # by job: of those, the ones not stopped, once one was
        self._reports: deque[tuple[int, AttemptReport]] = deque()
        self._recent: OrderedDict[str, AttemptReport] = OrderedDict()
        self._first = self._last = int(self.incarnation[:12], 16)  # every life numbers its reports from elsewhere
        self._term = 0
        self._busy = 0  # slots that are in use
        self._numbers = SlotNumbers()
        self._closing = False
        self._news: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: list[threading.Thread] = []
        self._runner: Runner | None = None
        self._reaper: Pulse | None = None

    # --- life ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Clear what an earlier life left, then begin to work."""
        become_subreaper()
        earlier = f"{self._root}|"
        kill_lineage(
            (), lambda mark: mark.startswith(earlier) and not mark.startswith(self._mark_prefix), EARLIER_LIFE_S
        )
        left_over = self._leftovers.find(self._places.jobs)
        self._places.open()
        shared = SharedDataCache(self._places.shared, self._blobs, self._settings.data_cache, self._traffic)
        self._runner = Runner(
            self.node_id,
            self._definitions,
            self._blobs,
            self._places,
            shared,
            self._watchdog,
            self._mark_prefix,
            self._traffic,
            self._memory.verdict,
            self._disk,
        )
        self._runner.warm.follow(self._pricers, self.slots)
        frozen_s = FROZEN_S if self._own_process else math.inf
        self._watchdog.bury = self._runner.warm.bury
        self._watchdog.helpers.retire = self._runner.warm.retire
        self._reaper = reaper.start(
            self._mark_prefix, (self._places.jobs, self._places.spare, self._places.temporary), frozen_s
        )
        self._watchdog.helpers.record = reaper.Record(self._reaper.send)
        self._watchdog.start({self._reaper.pid})
        self._memory.start()
        self._publisher.start()
        self._health.start()
        self._disk.start()
        with self._work:
            self._append(left_over)
            self._left_over = self._last if left_over else 0
            self._fill_slots()

    def close(self) -> None:
        """Kill what runs, report it as not answered, and end every thread and helper."""
        with self._work:
            self._closing = True
            self._waiting.clear()
            self._work.notify_all()
        self._definitions.close()
        until = time.monotonic() + CLOSE_S
        while any(thread.is_alive() for thread in self._threads) and time.monotonic() < until:
            for running in self._watchdog.all():  # again and again: one may just be about to spawn its pricer
                running.stop(Outcome.CANCELLED, "the node agent is stopping", 0)
            for thread in list(self._threads):
                thread.join(timeout=0.05)
        if self._runner is not None:
            self._runner.warm.close()
        self._publisher.close()
        self._memory.close()
        self._watchdog.close()
        self._disk.close()
        self._health.close()
        if self._reaper is not None:
            self._reaper.close()
        if not any(thread.is_alive() for thread in self._threads):
            self._places.close()

    def _fill_slots(self) -> None:
        """Have a thread for every slot, and a few to spare; called with the lock held.

        Threads beyond that end as they come to rest.
        """
        while len(self._threads) < self._most_threads and not self._closing and self._runner is not None:
            thread = threading.Thread(target=self._slot, args=(self._runner,), name="raygrid-slot", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._work.notify_all()

    @property
    def _most_threads(self) -> int:
        return self.slots + min(self.slots, COLLECTORS)

    def _slot(self, runner: Runner) -> None:
        while True:
            with self._work:
                while not (self._closing or len(self._threads) > self._most_threads) and (
                    not self._waiting or self._busy >= self.slots
                ):
                    self._work.wait()
                if self._closing:
                    return
                if len(self._threads) > self._most_threads:
                    self._threads.remove(threading.current_thread())
                    self._work.notify()  # it may have been this one that was woken for an attempt
                    return
                _, order = self._waiting.popitem(last=False)
                self._busy += 1
                slot = _Slot(self._numbers.take(), self._leave_slot)
            try:
                run = self._run_apart if order.apart else runner.run
                finished = run(order, slot.leave_early, slot.number)
            except Exception as error:  # whatever it was: this attempt ends, the slot does not
                logger.exception("attempt %s.%s failed on this node", order.attempt.job_id, order.attempt.number)
                message = f"node {self.node_id} failed the attempt: unexpected {type(error).__name__}: {error}"
                finished = Finished(AttemptReport(order.attempt, Outcome.INFRASTRUCTURE, message=message))
            slot.leave()
            self._publisher.put(finished)

    def _run_apart(self, order: AttemptOrder, ended: Callable[[], None], slot: int) -> Finished:
        """Run an attempt at a time at which no other agent of this machine runs one of its kind."""
        runner = self._runner
        assert runner is not None
        waiting = Running(order.attempt, time.monotonic(), math.inf, None, sys.maxsize, ())
        self._watchdog.watch(waiting)
        try:
            with self._apart.turn(lambda: waiting.killed_for is not None) as is_mine:
                self._watchdog.release(waiting)
                if is_mine:
                    return runner.run(order, ended, slot)
        finally:
            self._watchdog.release(waiting)
        return Finished(AttemptReport(order.attempt, waiting.killed_for or Outcome.CANCELLED, message=waiting.message))

    def _leave_slot(self, number: int, *, wake: bool) -> None:
        with self._work:
            self._busy -= 1
            self._numbers.give_back(number)
            if wake and self._waiting:
                self._work.notify()

    # --- what leaders ask ---------------------------------------------------------------------------------------

    def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        """Accept attempts; see `NodeLink.start`.

        Raises:
            StaleTermError: the order is that of a leader that leads no more.
        """
        answered: list[AttemptReport] = []
        with self._work:
            self._accept_term(term)
            lost = self._definitions.put(definitions) if definitions else frozenset()
            if lost:
                answered += self._end_waiting(lost)
            for order in orders:
                if order.blobs is not None:
                    self._blobs.expect(order.blobs)  # the same in every order: a grid agrees on it once
                attempt = order.attempt
                known = self._held.get(attempt.job_id)
                if known is not None:
                    # The job is here already, under this attempt or one thought lost: it runs once, and each attempt
                    # gets the answer.
                    if attempt not in known:
                        known.append(attempt)
                        if (wanted := self._wanted.get(attempt.job_id)) is not None:
                            wanted.append(attempt)
                elif (recent := self._recent.get(attempt.job_id)) is not None:
                    answered.append(replace(recent, attempt=attempt))
                elif order.spec.definition in lost:
                    answered.append(_definition_lost(order))
                elif len(self._waiting) >= MOST_WAITING:
                    message = f"node {self.node_id} has {MOST_WAITING} attempts waiting and takes no more"
                    answered.append(AttemptReport(attempt, Outcome.INFRASTRUCTURE, message=message))
                else:
                    self._held[attempt.job_id] = [attempt]
                    self._waiting[attempt] = order
                    self._definitions.expect(order.spec)
            self._work.notify(len(orders))
            self._append(answered)

    def _end_waiting(self, lost: frozenset[str]) -> list[AttemptReport]:
        """End the attempts that wait for a slot and whose definition is lost; called with the lock held."""
        reports: list[AttemptReport] = []
        for order in [each for each in self._waiting.values() if each.spec.definition in lost]:
            del self._waiting[order.attempt]
            self._wanted.pop(order.spec.job_id, None)
            same_end = self._held.pop(order.spec.job_id)
            reports += [replace(_definition_lost(order), attempt=attempt) for attempt in same_end]
        return reports

    def stop(self, term: int, attempts: Sequence[AttemptId]) -> None:
        """Kill attempts; see `NodeLink.stop`."""
        gone: list[AttemptId] = []
        runs: list[AttemptId] = []
        with self._work:
            self._accept_term(term)
            for attempt in attempts:
                known = self._held.get(attempt.job_id, [])
                wanted = self._wanted.get(attempt.job_id, known)
                if attempt not in wanted:
                    continue
                if len(wanted) > 1:
                    # Another attempt of the job shares the run and still wants its end.
                    self._wanted[attempt.job_id] = [each for each in wanted if each != attempt]
                elif self._waiting.pop(known[0], None) is not None:
                    gone.append(known[0])
                else:
                    runs.append(known[0])
        self._deliver([AttemptReport(attempt, Outcome.CANCELLED, message="cancelled") for attempt in gone])
        for attempt in runs:
            running = self._watchdog.find(attempt)
            if running is not None:
                running.stop(Outcome.CANCELLED, "cancelled", self._settings.kill_grace_s)

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        """Wait for reports; see `NodeLink.reports`."""
        if self._news is None:
            self._news, self._loop = asyncio.Event(), asyncio.get_running_loop()
            if self._own_process and self._reaper is not None:
                self._reaper.follow(self._loop)
        with self._lock:
            self._accept_term(term)
            if not self._first <= after <= self._last:
                # The asker knows nothing, or means the reports of an earlier life: it must settle none of this one, and
                # learn of it at once.
                wait_s = 0.0 if after else wait_s
                after, settled = self._first, 0
            while self._reports and self._reports[0][0] <= settled:
                self._reports.popleft()
            if 0 < self._left_over <= settled:
                self._left_over = 0
                self._leftovers.settle()
            if self._last <= after:
                self._news.clear()
        if wait_s > 0 and self._last <= after:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
        with self._lock:
            fresh = tuple(report for number, report in self._reports if number > after)
            return NodeReply(self._state(), fresh, self._last)

    def configure(self, term: int, pricers: dict[str, Pricer], settings: Node, deployed_at: float) -> None:
        """Follow newer settings; see `NodeLink.configure`.

        Pricers count for attempts that begin from now on, slots and grace at once (what runs beyond fewer slots may
        finish); idle warm processes with other settings are ended. The sizes of the caches are those that the agent was
        opened with.
        """
        with self._work:
            self._accept_term(term)
            if deployed_at <= self._deployed_at:
                return
            self._deployed_at = deployed_at
            self._pricers = pricers
            self._settings = settings
            self.slots = _slots(settings)
            self._watchdog.follow(settings)
            self._definitions.follow(pricers)
            self._memory.reserve = settings.memory_reserve
            if self._runner is not None:
                self._runner.warm.follow(pricers, self.slots)
            self._fill_slots()
            self._wake()

    def results(self, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """Cached results; see `ResultCaches.results`."""
        found = self._cache.get(key, job_ids)
        self._traffic.add(served=sum(len(each) for each in found if each is not None))
        return found

    def _accept_term(self, term: int) -> None:
        if term < self._term:
            raise StaleTermError(f"node {self.node_id} follows term {self._term}; an order of term {term} is void")
        self._term = term

    def _state(self) -> NodeState:
        started = [attempts for attempts in self._held.values() if attempts[0] not in self._waiting]
        waiting = [attempts for attempts in self._held.values() if attempts[0] in self._waiting]
        running = tuple(attempt for attempts in (*started, *waiting) for attempt in attempts)
        behind = sum(map(len, waiting))
        why = self._health.why or self._disk.why
        if why is None and len(self._reports) > MOST_REPORTS:
            why = f"{len(self._reports)} of its reports are not committed to the job store yet"
        return NodeState(
            self.node_id,
            self.incarnation,
            self.slots,
            running,
            behind,
            why is None,
            why,
            self._address,
            marker=self._blobs.seen,
            blobs=self._blobs.shown,
            traffic=self._traffic.total,
            deployed_at=self._deployed_at,
            lacks=self._definitions.lacks,
            memory=self._memory.total,
        )

    # --- ends of attempts ---------------------------------------------------------------------------------------

    def _deliver(self, reports: Sequence[AttemptReport]) -> None:
        """Take reports of ended attempts (from the publisher's thread) and wake whoever waits for them."""
        with self._lock:
            for report in reports:
                self._remember(report)
                same_end = self._held.pop(report.attempt.job_id, [report.attempt])
                self._wanted.pop(report.attempt.job_id, None)
                self._append(
                    [report if attempt == report.attempt else replace(report, attempt=attempt) for attempt in same_end]
                )

    def _append(self, reports: Sequence[AttemptReport]) -> None:
        if self._closing:
            return
        for report in reports:
            self._last += 1
            self._reports.append((self._last, report))
        if reports:
            self._wake()

    def _wake(self) -> None:
        """Let a poll that waits be answered now."""
        if self._news is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._news.set)

    def _remember(self, report: AttemptReport) -> None:
        """Keep an answer for a further attempt of the same job, unless that attempt is meant to answer anew."""
        if report.outcome in INFRASTRUCTURE_OUTCOMES or report.outcome is Outcome.CANCELLED:
            return
        if report.exit_code not in (None, 0) and any(
            report.exit_code in pricer.retry_exit_codes for pricer in self._pricers.values()
        ):
            return
        self._recent[report.attempt.job_id] = report
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)


class _Slot:
    """A slot that an attempt has, until its pricer has ended: what is left to do then is done beside the next one."""

    def __init__(self, number: int, leave: Callable[..., None]) -> None:
        self.number = number
        self._leave = leave
        self._began = time.monotonic()
        self._left = False

    def leave_early(self) -> None:
        """The pricer has ended. One that was short keeps its slot: to wake another thread would take as long."""
        if time.monotonic() - self._began > SHORT_S:
            self._left = True
            self._leave(self.number, wake=True)

    def leave(self) -> None:
        """All is done; the thread goes on by itself."""
        if not self._left:
            self._leave(self.number, wake=False)


def _definition_lost(order: AttemptOrder) -> AttemptReport:
    return AttemptReport(order.attempt, Outcome.DEFINITION_LOST, message=lost_message(order.spec))


def _slots(settings: Node) -> int:
    return settings.slots or usable_processors()
