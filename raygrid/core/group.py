"""The state machine of a group: what its leader decides.

`GroupState.handle(event, now)` takes what happened and returns what to do. It holds the waiting line, what each
node holds, and what is known of every unfinished job in memory; the job store stays the truth. The leader carries
the commands out and brings back what came of them as further events.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from raygrid.core.backlog import Backlog
from raygrid.core.blob_marker import blob_store_trouble
from raygrid.core.collector import Collector
from raygrid.core.draining import Drains, overdue
from raygrid.core.entry import Entry
from raygrid.core.events import (
    AttemptOrder,
    CancelRequested,
    Command,
    Event,
    HandOverEnded,
    JobsArrived,
    NodeDraining,
    NodeLost,
    NodeReported,
    NodesExpected,
    PolicyChanged,
    Tick,
)
from raygrid.core.introductions import Introductions
from raygrid.core.lifecycle import failure_reason, final_state
from raygrid.core.load import capacity_of
from raygrid.core.placement import POLICIES, NodeRecord, pick, with_room
from raygrid.core.policy import GroupPolicy
from raygrid.core.pricers import GRACE_S, Pricers, removed_message
from raygrid.core.retry import exhausted_reason
from raygrid.models import (
    INFRASTRUCTURE_OUTCOMES,
    AttemptId,
    AttemptReport,
    GroupCapacity,
    JobState,
    JobUpdate,
    NodeState,
    Outcome,
    QueuedJob,
)

PENDING = float("inf")
REMEMBERED_ENDS = 50_000
RECALL_S = 1.0  # an attempt that has waited on its node for this long is taken back
STOP_AGAIN_S = 1.0  # a cancelled attempt that a node still has after this long is stopped once more


class GroupState:
    """A group's jobs and nodes, and every decision about them."""

    def __init__(self, group_id: str, policy: GroupPolicy, *, site: str | None = None) -> None:
        self.group_id = group_id
        self.site = site
        self.policy = policy
        self.nodes: dict[str, NodeRecord] = {}
        self.blobs: str | None = None  # the marker that a node must see to get work; None: any will do
        self._jobs: dict[str, Entry] = {}
        self._backlog = Backlog(policy.window)
        self._drains = Drains()
        self._introductions = Introductions()
        self._pricers = Pricers(policy.pricers)
        self._ended: OrderedDict[str, None] = OrderedDict()  # late word of these must not revive them
        self._choose = POLICIES[policy.placement]

    # --- what others may ask ------------------------------------------------------------------------------------

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    @property
    def queued(self) -> int:
        """Jobs in memory that have no node."""
        return len(self._backlog)

    @property
    def handed_over(self) -> int:
        """Jobs that wait on a node; the store still has them as queued."""
        return sum(not entry.recorded and entry.node_id is not None for entry in self._jobs.values())

    @property
    def wants_more(self) -> bool:
        """Whether the store should be asked for further jobs."""
        return self.queued < self.policy.window // 2

    def capacity(self, now: float, *, queued: int | None = None) -> GroupCapacity:
        """The group's load; `queued` where the store knows better than the window in memory."""
        waiting = self.queued if queued is None else queued
        return capacity_of(self.group_id, self.site, self.nodes.values(), self.policy.quota, waiting, now)

    # --- events in, commands out --------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at `now` (seconds since the epoch, never falling) and return what to do."""
        out = Collector(now)
        match event:
            case JobsArrived(jobs, scanned):
                if scanned:
                    self._backlog.scanned()
                for job in jobs:
                    self._arrived(job, out)
            case CancelRequested(job_ids):
                for job_id in job_ids:
                    self._cancel(job_id, out)
            case NodesExpected(node_ids):
                self._introductions.expect(node_ids, out.now)
            case NodeReported(state, reports, asked_at):
                self._introductions.heard(state.node_id)
                self._node_reported(state, reports, asked_at, out)
            case NodeLost(node_id):
                self._introductions.heard(node_id)
                self._lose_node(node_id, "its Ray node or agent is gone", out)
            case NodeDraining(node_id):
                self._drains.told(event, self.nodes.get(node_id))
                self._move_overdue(out)
            case HandOverEnded(node_id, attempts, arrived):
                self._hand_over_ended(node_id, attempts, arrived, out)
            case PolicyChanged():
                self._policy_changed(event, out)
            case Tick(confirmed):
                self._tick(confirmed, out)
        self._place(out)
        return out.commands()

    # --- jobs ---------------------------------------------------------------------------------------------------

    def _arrived(self, job: QueuedJob, out: Collector) -> None:
        job_id = job.spec.job_id
        if job_id in self._jobs or job_id in self._ended:
            return
        if not job.running and not self._backlog.admits(job.spec.priority):
            return  # the store keeps it; a scan brings it back when there is room
        entry = Entry(job.spec, attempts=job.attempts, charged=job.failures, cancelled=job.cancel_requested)
        self._jobs[job_id] = entry
        if job.running and job.node_id is not None:
            # Found at recovery, its attempt not failed yet: the node will tell, or fall silent and be lost.
            entry.node_id = job.node_id
            entry.unconfirmed = entry.recorded = True
            node = self.nodes.get(job.node_id) or self._new_node(job.node_id, "", 0, out)
            node.held[entry.current] = out.now
            if entry.cancelled:
                self._stop(entry, out)
        elif entry.cancelled:
            self._end(entry, JobState.CANCELLED, out, reason="cancelled", message="cancelled before it started")
        else:
            self._line_up(entry, out)

    def _cancel(self, job_id: str, out: Collector) -> None:
        entry = self._jobs.get(job_id)
        if entry is None:
            if job_id not in self._ended:
                # It waits in the store only. The store refuses the write if the job has ended meanwhile.
                self._remember_end(job_id)
                why = "cancelled before it started"
                out.update(JobUpdate(job_id, JobState.CANCELLED, 0, None, out.at, "cancelled", None, why))
            return
        entry.cancelled = True
        if entry.node_id is not None:
            self._stop(entry, out)
        else:
            self._end(entry, JobState.CANCELLED, out, reason="cancelled", message="cancelled while it waited")

    def _stop(self, entry: Entry, out: Collector) -> None:
        if entry.node_id is not None:
            entry.stop_sent_at = out.now
            out.stop(entry.node_id, entry.current)

    def _end(
        self,
        entry: Entry,
        state: JobState,
        out: Collector,
        *,
        reason: str | None = None,
        report: AttemptReport | None = None,
        message: str | None = None,
        node_id: str | None = None,
    ) -> None:
        job_id = entry.spec.job_id
        self._backlog.remove(job_id)
        del self._jobs[job_id]
        self._remember_end(job_id)
        out.update(JobUpdate(job_id, state, entry.attempts, node_id, out.at, reason, report, message, entry.charged))

    def _remember_end(self, job_id: str) -> None:
        self._ended[job_id] = None
        if len(self._ended) > REMEMBERED_ENDS:
            self._ended.popitem(last=False)

    # --- attempts -----------------------------------------------------------------------------------------------

    def _attempt_ended(self, node: NodeRecord | None, report: AttemptReport, node_id: str, out: Collector) -> None:
        if node is not None:
            node.held.pop(report.attempt, None)
            node.uncertain.discard(report.attempt)
            self._learn(node, report, out)
        entry = self._jobs.get(report.attempt.job_id)
        if entry is None:
            return  # ended already, or not this group's
        is_current = report.attempt == entry.current and entry.node_id == node_id
        if report.outcome in INFRASTRUCTURE_OUTCOMES:
            if is_current:
                self._try_again(entry, report, node_id, out)
            return
        if report.outcome is Outcome.CANCELLED and not entry.cancelled:
            if is_current:  # killed for the grid's reasons, not the client's: it costs the job nothing
                entry.recalled += entry.moved or not entry.recorded
                self._requeue(entry, out, charge=False)
            return
        if self.policy.retry.wants_another(entry.spec.pricer, report, entry.charged + 1) and not entry.cancelled:
            if is_current:
                entry.charged += 1
                self._requeue(entry, out, charge=False)
            return
        # The first answer wins, be it of an attempt that was thought lost; a newer one is stopped.
        if not is_current and entry.node_id is not None:
            self._release(entry, out, stop=True)
        # A leader before this one may have started more attempts than it could record.
        entry.attempts = max(entry.attempts, report.attempt.number)
        why = "cancelled" if report.outcome is Outcome.CANCELLED else failure_reason(report)
        state, message = final_state(report), report.message
        self._end(entry, state, out, reason=why, report=report, message=message, node_id=node_id)

    def _learn(self, node: NodeRecord, report: AttemptReport, out: Collector) -> None:
        entry = self._jobs.get(report.attempt.job_id)
        pricer = entry.spec.pricer if entry else ""
        policy = self.policy
        if report.outcome is Outcome.CANNOT_START:
            node.could_not_start(pricer, out.now, policy.probation_after, policy.probation_s)
        elif report.outcome is Outcome.INFRASTRUCTURE:
            node.failed(out.now, policy.probation_after, policy.probation_s)
        elif report.outcome not in (Outcome.LOST, Outcome.INPUT_LOST, Outcome.CANCELLED):
            node.succeeded(pricer)
            if report.started_at is not None and report.ended_at is not None:
                node.saw_duration((report.ended_at - report.started_at).total_seconds())

    def _try_again(self, entry: Entry, report: AttemptReport, node_id: str, out: Collector) -> None:
        """An attempt failed for the grid's reasons: run it elsewhere, unless it has had its attempts."""
        if entry.moved or (entry.unconfirmed and report.outcome is Outcome.LOST):
            # Its node was to be rid of it anyway; or the grid was restarted, or leader and node went together: nothing
            # says that the job had a part in it.
            entry.recalled += entry.moved
            self._requeue(entry, out, charge=False)
            return
        entry.charged += 1
        entry.lost += report.outcome is Outcome.LOST
        entry.failed_on.add(node_id)
        retry = self.policy.retry
        exhausted = entry.charged >= retry.max_attempts or entry.attempts - entry.recalled >= retry.hard_limit
        if exhausted and not entry.cancelled:
            reason, message = exhausted_reason(report, entry.charged, all_lost=entry.lost >= entry.charged)
            self._end(entry, JobState.FAILED, out, reason=reason, report=report, message=message, node_id=node_id)
            return
        self._requeue(entry, out, charge=True)

    def _requeue(self, entry: Entry, out: Collector, *, charge: bool) -> None:
        """Put a job back in line whose attempt came to nothing, unless it is cancelled or has gone round too often."""
        if entry.cancelled:
            state, why, message = JobState.CANCELLED, "cancelled", "cancelled"
        elif entry.attempts - entry.recalled >= self.policy.retry.hard_limit:
            state, why = JobState.FAILED, Outcome.INFRASTRUCTURE.value
            message = f"gave up after {entry.attempts} attempts, most of which never ran"
        else:
            self._wait_again(entry, out, charge=charge)
            return
        self._end(entry, state, out, reason=why, message=message, node_id=entry.node_id)

    def _wait_again(self, entry: Entry, out: Collector, *, charge: bool) -> None:
        entry.node_id = None
        entry.unconfirmed = False
        update = JobUpdate(entry.spec.job_id, JobState.QUEUED, entry.attempts, None, out.at, failures=entry.charged)
        out.update(update)
        usable = (node.node_id for node in self.nodes.values() if node.healthy and not node.draining)
        others = any(node_id not in entry.failed_on for node_id in usable)
        delay = 0.0 if others or not charge else self.policy.retry.delay_s(entry.charged)
        self._line_up(entry, out, first=True, delay=delay)

    def _line_up(self, entry: Entry, out: Collector, *, first: bool = False, delay: float = 0.0) -> None:
        """Let a job wait for a node, or for its pricer to become known; refuse it where that cannot come."""
        spec = entry.spec
        if self._pricers.is_removed(spec.pricer):
            self._refuse(entry, out)
        elif spec.pricer not in self._pricers:
            self._backlog.aside[spec.job_id] = out.now
        elif delay:
            self._backlog.add_later(spec.job_id, spec.priority, out.now + delay)
        else:
            self._backlog.add(spec.job_id, spec.priority, first=first)

    def _refuse(self, entry: Entry, out: Collector) -> None:
        message = removed_message(entry.spec.pricer)
        self._end(entry, JobState.FAILED, out, reason="unknown_pricer", message=message)

    def _release(self, entry: Entry, out: Collector, *, stop: bool) -> None:
        """Take a job's current attempt off the books of its node."""
        if entry.node_id is None:
            return
        node = self.nodes.get(entry.node_id)
        if node is not None:
            node.held.pop(entry.current, None)
            node.uncertain.discard(entry.current)
            if stop:
                out.stop(entry.node_id, entry.current)
        entry.node_id = None

    # --- nodes --------------------------------------------------------------------------------------------------

    def _node_reported(
        self, state: NodeState, reports: Iterable[AttemptReport], asked_at: float, out: Collector
    ) -> None:
        node = self.nodes.get(state.node_id)
        if node is not None and node.incarnation not in ("", state.incarnation):
            self._lose_node(state.node_id, "its agent started anew", out)
            node = None
        if node is None:
            node = self._new_node(state.node_id, state.incarnation, state.slots, out)
        node.incarnation, node.slots, node.last_seen = state.incarnation, state.slots, out.now
        node.why = state.why if not state.healthy else blob_store_trouble(self.blobs, state)
        node.healthy, node.address = state.healthy and node.why is None, state.address
        node.traffic = state.traffic
        node.deployed_at, node.behind = state.deployed_at, state.deployed_at < self.policy.deployed_at
        for report in reports:
            self._attempt_ended(node, report, state.node_id, out)
        self._reconcile(node, state, asked_at, out)

    def _new_node(self, node_id: str, incarnation: str, slots: int, out: Collector) -> NodeRecord:
        node = self.nodes[node_id] = NodeRecord(node_id, incarnation, slots, last_seen=out.now)
        node.weight = self.policy.weights.get(node_id, 1.0)
        self._drains.mark(node)
        return node

    def _reconcile(self, node: NodeRecord, state: NodeState, asked_at: float, out: Collector) -> None:
        """Hold what is believed of a node against what it says it has."""
        has = dict.fromkeys(state.running)
        missing = [attempt for attempt, since in node.held.items() if attempt not in has and since < asked_at]
        for attempt in missing:
            certain = attempt not in node.uncertain
            if certain:
                lost = AttemptReport(attempt, Outcome.LOST, message=f"node {node.node_id} no longer knows the attempt")
                self._attempt_ended(node, lost, node.node_id, out)
                continue
            del node.held[attempt]
            node.uncertain.discard(attempt)
            entry = self._jobs.get(attempt.job_id)
            if entry is not None and entry.current == attempt and entry.node_id == node.node_id:
                self._requeue(entry, out, charge=False)
        node.uncertain -= has.keys()
        node.foreign = 0
        started = len(has) - state.waiting
        for position, attempt in enumerate(has):
            if attempt not in node.held:
                self._adopt(node, attempt, out)
                continue
            entry = self._jobs.get(attempt.job_id)
            if entry is None or entry.current != attempt:
                continue
            entry.unconfirmed = False
            if position < started and not entry.recorded:
                self._record_running(entry, out)
            if position >= started and node.draining:
                out.stop(node.node_id, attempt)  # only what has a slot may finish there
            elif position >= started and out.now - node.held[attempt] > RECALL_S:
                # Whatever holds the slots takes longer than thought; elsewhere this one may find a slot sooner.
                node.saw_at_least(RECALL_S)
                out.stop(node.node_id, attempt)
            if entry.cancelled and out.now - entry.stop_sent_at > STOP_AGAIN_S:
                self._stop(entry, out)  # the first may have been lost, or have overtaken the hand-over

    def _adopt(self, node: NodeRecord, attempt: AttemptId, out: Collector) -> None:
        """A node has an attempt that this leader did not hand over: keep it if its job has no other."""
        entry = self._jobs.get(attempt.job_id)
        if entry is not None and entry.node_id is None and attempt.number >= entry.attempts:
            self._backlog.remove(attempt.job_id)
            entry.attempts, entry.node_id = attempt.number, node.node_id
            node.held[attempt] = out.now
            self._record_running(entry, out)
            return
        node.foreign += 1
        if entry is not None or attempt.job_id in self._ended:
            out.stop(node.node_id, attempt)

    def _hand_over_ended(self, node_id: str, attempts: Iterable[AttemptId], arrived: bool, out: Collector) -> None:
        node = self.nodes.get(node_id)
        if node is None:
            return
        for attempt in attempts:
            if attempt in node.held:
                node.held[attempt] = out.now
                if not arrived:
                    node.uncertain.add(attempt)

    def _lose_node(self, node_id: str, why: str, out: Collector) -> None:
        node = self.nodes.pop(node_id, None)
        if node is None:
            return
        # What was still waiting on the node for a slot is not to blame for whatever took it down.
        for attempt in list(node.held):
            entry = self._jobs.get(attempt.job_id)
            if entry is None or entry.current != attempt or entry.node_id != node_id:
                continue
            if entry.recorded:
                lost = AttemptReport(attempt, Outcome.LOST, message=f"node {node_id} was lost: {why}")
                self._try_again(entry, lost, node_id, out)
            else:
                self._requeue(entry, out, charge=False)

    def _move_overdue(self, out: Collector) -> None:
        """Have what draining nodes still hold after their deadline stopped; its end puts it back in line."""
        for node in overdue(self.nodes.values(), out.now):
            for attempt in node.held:
                entry = self._jobs.get(attempt.job_id)
                if entry is None or entry.current != attempt or out.now - entry.stop_sent_at <= STOP_AGAIN_S:
                    continue
                entry.moved = True
                self._stop(entry, out)  # again and again: one may be lost, or overtake the hand-over

    # --- time and placement -------------------------------------------------------------------------------------

    def _policy_changed(self, event: PolicyChanged, out: Collector) -> None:
        self.policy, self.site = event.policy, event.site
        self._choose = POLICIES[self.policy.placement]
        self._backlog.window = self.policy.window
        self._pricers.changed(self.policy.pricers)
        for node in self.nodes.values():
            node.weight = self.policy.weights.get(node.node_id, 1.0)
            node.behind = node.deployed_at < self.policy.deployed_at
        for job_id in list(self._backlog):
            entry = self._jobs[job_id]
            if job_id in self._backlog.aside or entry.spec.pricer not in self._pricers:
                self._backlog.remove(job_id)
                self._line_up(entry, out)

    def _tick(self, confirmed: bool, out: Collector) -> None:
        for job_id, since in list(self._backlog.aside.items()):
            if not confirmed:
                self._backlog.aside[job_id] = out.now
            elif out.now - since > GRACE_S:
                self._refuse(self._jobs[job_id], out)
        self._backlog.ripen(out.now)
        self._move_overdue(out)
        silent = [n.node_id for n in self.nodes.values() if out.now - n.last_seen > self.policy.node_timeout_s]
        for node_id in silent:
            self._lose_node(node_id, f"silent for more than {self.policy.node_timeout_s:g} s", out)

    def _place(self, out: Collector) -> None:
        """Hand waiting jobs to nodes while there is room, most urgent first."""
        if not self._backlog.ready or not self._introductions.are_over(out.now):
            return
        factor, left = self.policy.prefetch, self._backlog.ready
        if self.policy.quota is not None:
            factor = 0  # what waits on a node could start unseen, beyond the quota
            left = self.policy.quota - sum(node.used for node in self.nodes.values())
        nodes = with_room(self.nodes.values(), out.now, factor)
        aside: list[Entry] = []
        while nodes and left > 0 and self._backlog.ready and len(aside) < 64:
            entry = self._jobs[self._backlog.pop()]
            node = pick(self._choose, nodes, self.nodes.values(), entry.failed_on, entry.spec.pricer, out.now)
            if node is None:
                aside.append(entry)
                continue
            self._start(entry, node, out)
            left -= 1
            if node.room(out.now, factor) == 0:
                nodes.remove(node)
        for entry in reversed(aside):
            self._backlog.add(entry.spec.job_id, entry.spec.priority, first=True)

    def _start(self, entry: Entry, node: NodeRecord, out: Collector) -> None:
        starts_at_once = node.free > 0
        entry.attempts += 1
        entry.node_id = node.node_id
        entry.recorded = entry.moved = False
        node.held[entry.current] = PENDING
        out.start(node.node_id, AttemptOrder(entry.current, entry.spec, self.blobs))
        if starts_at_once:
            self._record_running(entry, out)

    @staticmethod
    def _record_running(entry: Entry, out: Collector) -> None:
        """Tell the store that the attempt runs. One that still waits on its node is told of when it has a slot.

        Many short jobs are over by then: their start and end are one write.
        """
        entry.recorded = True
        job_id = entry.spec.job_id
        out.update(JobUpdate(job_id, JobState.RUNNING, entry.attempts, entry.node_id, out.at, failures=entry.charged))
