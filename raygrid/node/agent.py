"""The node agent: accepts attempts, runs them in as many threads as it has slots, and reports their ends.

Threads do the work; an event loop waits for reports. `actor.py` makes it a Ray actor. Reports are numbered and kept
until the leader has committed them, so that a leader that asks again misses none.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from uuid_utils import uuid4

from raygrid.blobs import BlobStore
from raygrid.core.group.events import AttemptOrder
from raygrid.core.sandbox_state import NO_SANDBOX
from raygrid.errors import StaleTermError
from raygrid.models import AttemptId, AttemptReport, Definition, NodeState, Outcome
from raygrid.node import reaper
from raygrid.node.accepted import AcceptedAttempts
from raygrid.node.attempt.runner import Runner
from raygrid.node.attempt.stages import FinishedAttempt
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.cache import LocalPackStore, PackStore, ResultCache
from raygrid.node.definitions import NodeDefinitions
from raygrid.node.health import NodeHealth
from raygrid.node.leftovers import Leftovers, kill_earlier_lives
from raygrid.node.limits.disk import DiskWatch
from raygrid.node.limits.memory_guard import MemoryGuard
from raygrid.node.limits.watchdog import Watchdog
from raygrid.node.publisher import Publisher
from raygrid.node.report_log import ReportLog
from raygrid.node.sandbox.sandboxes import Sandboxes
from raygrid.node.shared_data import SharedDataCache
from raygrid.node.slots import Slot, Slots
from raygrid.node.suspect_turns import SuspectTurns
from raygrid.node.traffic import TrafficMeter
from raygrid.settings.pricer import Pricer
from raygrid.settings.sections import Node
from raygrid.system.heartbeat import Heartbeat
from raygrid.system.processes import become_subreaper
from raygrid.system.processors import usable_processors
from raygrid.transport.ports import NodeReply

logger = logging.getLogger(__name__)

MOST_REPORTS = 4_096
HELPER_LOCKS = ".helpers"  # a directory among those of the nodes; no node can have that name
CLOSE_S = 10.0
FROZEN_S = 15.0  # well beyond the silence after which a leader moves the node's jobs


class NodeAgent:
    """Runs attempts on one node.

    Args:
        node_id: the node's name in the grid.
        root: this node's work directory; no other program uses it.
        pricers: the configured pricers.
        settings: the node's settings, such as slots and sizes of caches.
        blobs: the blob store, for inputs and results.
        pack_store: keeps cached results.
        address: the address at which parents reach this agent.
        deployed_at: when the settings were deployed, seconds since the epoch.
        own_process: whether this process runs only the agent; then it is killed if it freezes.
        hidden: paths of the grid that sandboxes hide, besides `root`.
        read_only: paths that pricers in sandboxes cannot change.
    """

    def __init__(
        self,
        node_id: str,
        root: Path,
        pricers: dict[str, Pricer],
        settings: Node,
        blobs: BlobStore,
        pack_store: PackStore | None = None,
        address: str = "",
        deployed_at: float = 0.0,
        own_process: bool = False,
        hidden: Sequence[str] = (),
        read_only: Sequence[str] = (),
    ) -> None:
        self._own_process = own_process
        self._address = address
        self._deployed_at = deployed_at
        self.node_id = node_id
        self.incarnation = uuid4().hex
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._accepted = AcceptedAttempts(node_id)
        self._slots = Slots(_slots(settings), self._accepted, self._work, self._run)
        self._log = ReportLog(self.incarnation)
        self._root = root
        self._pricers = pricers
        self._definitions = NodeDefinitions(pricers, self._log.wake)
        self._settings = settings
        self._blobs = blobs
        self._mark_prefix = f"{root}|{self.incarnation}|"
        self._workspace = Workspace(root, self.incarnation)
        self._sandboxes = Sandboxes(self._workspace, hidden, read_only)
        self._sandbox_state = NO_SANDBOX
        self._cache = ResultCache(pack_store or LocalPackStore(), settings.cache)
        self._traffic = TrafficMeter()
        self._publisher = Publisher(
            node_id, blobs, self._cache, self._deliver, lambda: bool(self._accepted.waiting), self._traffic
        )
        self._health = NodeHealth(node_id, self._workspace, blobs, self._publisher, self._log.wake)
        self._watchdog = Watchdog(
            self._mark_prefix, settings, own_process=own_process, shared=root.parent / HELPER_LOCKS
        )
        self._memory = MemoryGuard(
            node_id, root, self.incarnation, self._mark_prefix, self._watchdog, settings.memory_reserve
        )
        self._leftovers = Leftovers(root, node_id)
        self._suspect_turns = SuspectTurns(root.parent, self._watchdog)
        self._disk = DiskWatch(self._watchdog, self._workspace, self._log.wake)
        self._term = 0
        self._runner: Runner | None = None
        self._reaper: Heartbeat | None = None

    # --- life ---------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Remove what earlier lives left, and start all threads."""
        become_subreaper()
        kill_earlier_lives(self._root, self._mark_prefix)
        left_over = self._leftovers.find(self._workspace.jobs, self._workspace.sandboxes)
        self._workspace.open()
        self._sandboxes.open()
        self._sandbox_state = self._sandboxes.state_for_all(self._pricers)
        shared = SharedDataCache(self._workspace.shared, self._blobs, self._settings.data_cache, self._traffic)
        self._runner = Runner(
            self.node_id,
            self._definitions,
            self._blobs,
            self._workspace,
            shared,
            self._watchdog,
            self._mark_prefix,
            self._traffic,
            self._memory.kill_reason,
            self._disk,
            self._sandboxes,
        )
        self._runner.warm.follow(self._pricers, self._slots.count)
        frozen_s = FROZEN_S if self._own_process else math.inf
        self._watchdog.reap_ended = self._runner.warm.reap_ended
        self._watchdog.helpers.retire = self._runner.warm.retire
        self._reaper = reaper.start(self._mark_prefix, self._workspace.of_this_life, frozen_s)
        self._watchdog.helpers.record = reaper.ProcessReporter(self._reaper.send)
        self._watchdog.start({self._reaper.pid})
        self._memory.start()
        self._publisher.start()
        self._health.start()
        self._disk.start()
        with self._work:
            self._log.append(left_over)
            self._leftovers.reported(self._log.last if left_over else 0)
            self._slots.resize(self._slots.count)

    def close(self) -> None:
        """Kill what runs, without reporting it, and end all threads and helper processes."""
        with self._work:
            self._log.is_closed = True
            self._accepted.waiting.clear()
        self._definitions.close()
        have_ended = self._slots.close(self._watchdog.stop_all, CLOSE_S)
        if self._runner is not None:
            self._runner.warm.close()
        self._publisher.close()
        self._memory.close()
        self._watchdog.close()
        self._disk.close()
        self._health.close()
        if self._reaper is not None:
            self._reaper.close()
        if have_ended:
            self._sandboxes.close()
            self._workspace.close()

    # --- attempts ---------------------------------------------------------------------------------------------------

    def _run(self, order: AttemptOrder, slot: Slot) -> None:
        """Run an attempt in a slot, and pass its result to the publisher."""
        runner = self._runner
        assert runner is not None, "the agent is not open"
        try:
            run = partial(runner.run, order, slot.leave_early, slot.number)
            finished = self._suspect_turns.run(order.attempt, run) if order.apart else run()
        except Exception as error:  # a defect of the node ends this attempt, not the slot
            what = "node %s: unexpected error in attempt %s; reporting it as infrastructure"
            logger.exception(what, self.node_id, order.attempt.name)
            message = f"node {self.node_id} failed the attempt: unexpected {type(error).__name__}: {error}"
            finished = FinishedAttempt(AttemptReport(order.attempt, Outcome.INFRASTRUCTURE, message=message))
        slot.leave()
        self._publisher.put(finished)

    # --- calls of leaders ---------------------------------------------------------------------------------------

    def start(self, term: int, orders: Sequence[AttemptOrder], definitions: Sequence[Definition] = ()) -> None:
        """Accept attempts; see `NodeCalls.start`.

        Raises:
            StaleTermError: the leader that sent the order has been replaced.
        """
        answered: list[AttemptReport] = []
        with self._work:
            self._accept_term(term)
            lost = self._definitions.put(definitions) if definitions else frozenset()
            if lost:
                answered += self._accepted.end_waiting(lost)
            for order in orders:
                if order.blobs is not None:
                    self._blobs.expect(order.blobs)  # the same in every order of a grid
                if (report := self._accepted.accept(order, lost)) is not None:
                    answered.append(report)
                else:
                    self._definitions.expect(order.spec)
            self._work.notify(len(orders))
            self._log.append(answered)

    def stop(self, term: int, attempts: Sequence[AttemptId], recalled: Sequence[AttemptId] = ()) -> None:
        """Kill attempts, and end recalled ones that have not begun; see `NodeCalls.stop`."""
        with self._work:
            self._accept_term(term)
            gone, runs = self._accepted.stop([*attempts, *self._accepted.not_begun(recalled)])
        self._deliver([AttemptReport(attempt, Outcome.CANCELLED, message="cancelled") for attempt in gone])
        for attempt in runs:
            running = self._watchdog.find(attempt)
            if running is not None:
                running.stop(Outcome.CANCELLED, "cancelled", self._settings.kill_grace_s)

    async def reports(self, term: int, after: int, settled: int, wait_s: float) -> NodeReply:
        """Wait for reports; see `NodeCalls.reports`."""
        loop = asyncio.get_running_loop()
        if self._log.attach(loop) and self._own_process and self._reaper is not None:
            self._reaper.follow(loop)
        with self._lock:
            self._accept_term(term)
            if not self._log.knows(after):
                # The leader has no report yet, or its number belongs to an earlier life: it settles no report of this
                # life, and gets its answer at once.
                wait_s = 0.0 if after else wait_s
                after, settled = self._log.first, 0
            self._log.settle(settled)
            self._leftovers.settle(settled)
            self._log.expect(after)
        if wait_s > 0 and self._log.last <= after:
            await self._log.wait(wait_s)
        with self._lock:
            return NodeReply(self._state(), self._log.since(after), self._log.last)

    def configure(
        self,
        term: int,
        pricers: dict[str, Pricer],
        settings: Node,
        deployed_at: float,
        hidden: Sequence[str] = (),
    ) -> None:
        """Apply newer settings; see `NodeCalls.configure`.

        Pricers apply to attempts that begin later, slots and grace at once; with fewer slots, surplus attempts may
        finish. Idle warm processes with other settings are ended. The sizes of the caches do not change. Sandboxes
        that are made later hide the paths in `hidden`, too.
        """
        with self._work:
            self._accept_term(term)
            if deployed_at <= self._deployed_at:
                return
            self._deployed_at = deployed_at
            self._sandboxes.hide(hidden)
            self._pricers = pricers
            self._sandbox_state = self._sandboxes.state_for_all(pricers)
            self._settings = settings
            self._slots.resize(_slots(settings))
            self._watchdog.follow(settings)
            self._definitions.follow(pricers)
            self._memory.reserve = settings.memory_reserve
            if self._runner is not None:
                self._runner.warm.follow(pricers, self._slots.count)
            self._log.wake()

    def results(self, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """Cached results; see `CacheCalls.results`."""
        found = self._cache.get(key, job_ids)
        self._traffic.add(served=sum(len(each) for each in found if each is not None))
        return found

    def _accept_term(self, term: int) -> None:
        if term < self._term:
            raise StaleTermError(f"node {self.node_id} follows term {self._term}; an order of term {term} is refused")
        self._term = term

    def _state(self) -> NodeState:
        attempts, behind = self._accepted.in_order()
        why = self._health.why or self._disk.why
        if why is None and len(self._log) > MOST_REPORTS:
            why = f"{len(self._log)} of its reports are not yet committed to the job store"
        return NodeState(
            self.node_id,
            self.incarnation,
            self._slots.count,
            attempts,
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
            sandbox=self._sandbox_state,
        )

    def _deliver(self, reports: Sequence[AttemptReport]) -> None:
        """Log reports of attempts that have ended; called from the publisher's thread, too."""
        with self._lock:
            for report in reports:
                self._log.append(self._accepted.end(report, self._pricers))


def _slots(settings: Node) -> int:
    return settings.slots or usable_processors()
