"""The nodes of a group: compares their reports with the leader's records."""

from __future__ import annotations

from collections.abc import Iterable

from raygrid.core.blob_marker import blob_store_trouble
from raygrid.core.group import suspects
from raygrid.core.group.collector import Collector
from raygrid.core.group.entry import Entry
from raygrid.core.group.events import NodeDraining, NodeReported
from raygrid.core.group.leftovers import GroupLeftovers
from raygrid.core.group.placement import NodeRecord
from raygrid.core.sandbox_state import SandboxState
from raygrid.models import AttemptId, AttemptReport, NodeState, Outcome

RECALL_S = 1.0  # an attempt that has waited on its node for this long is recalled
STOP_AGAIN_S = 1.0  # delay before the stop of an attempt that the node still has is sent again


class GroupNodes(GroupLeftovers):
    """Handles reports of nodes: adopts attempts that they run, and detects attempts and nodes that are lost."""

    def _node_heard(self, node_id: str, out: Collector) -> None:
        if node_id in self.nodes:
            self.nodes[node_id].last_seen = out.now

    def _node_reported(self, event: NodeReported, out: Collector) -> None:
        state = event.state
        node = self.nodes.get(state.node_id)
        if node is not None and node.incarnation not in ("", state.incarnation):
            self._lose_node(state.node_id, "its agent restarted", out)
            node = None
        if node is None:
            node = self._new_node(state.node_id, state.incarnation, state.slots, out)
        node.incarnation, node.slots, node.last_seen = state.incarnation, state.slots, out.now
        node.why = state.why if not state.healthy else blob_store_trouble(self.blobs, state)
        node.healthy, node.address = state.healthy and node.why is None, state.address
        node.traffic, node.memory = state.traffic, state.memory
        if node.sandbox != state.sandbox:
            node.sandbox = self._known_sandbox(state.sandbox)
        node.deployed_at, node.behind = state.deployed_at, state.deployed_at < self.policy.deployed_at
        left_over = [report for report in event.reports if report.outcome is Outcome.LOST]
        if left_over:
            self._left_over(node, left_over, out)
        for report in event.reports:
            if report.outcome is not Outcome.LOST:
                self._attempt_ended(node, report, out)
        self._reconcile(node, state, event.asked_at, out)
        self._touch(node.node_id)

    def _known_sandbox(self, sandbox: SandboxState) -> SandboxState:
        """The equal value of another node, if there is one: replies to parents then contain its sentences only once."""
        return next((each.sandbox for each in self.nodes.values() if each.sandbox == sandbox), sandbox)

    def _reconcile(self, node: NodeRecord, state: NodeState, asked_at: float, out: Collector) -> None:
        """Compare the attempts that a node reports with those on record."""
        has = dict.fromkeys(state.running)
        missing = [attempt for attempt, since in node.held.items() if attempt not in has and since < asked_at]
        for attempt in missing:
            if attempt in node.uncertain:
                self._never_arrived(node, attempt, out)
            else:
                lost = AttemptReport(attempt, Outcome.LOST, message=f"node {node.node_id} no longer knows the attempt")
                self._attempt_ended(node, lost, out)
        node.uncertain -= has.keys()
        node.foreign = 0
        started = len(has) - state.waiting
        for position, attempt in enumerate(has):
            if attempt not in node.held:
                self._adopt(node, attempt, out, runs=position < started)
                continue
            entry = self._job_on(node.node_id, attempt)
            if entry is None:
                continue
            if attempt == entry.current:
                entry.unconfirmed = False
                if position < started and not entry.recorded:
                    self._record_running(entry, out)
            if position >= started and node.draining:
                out.recall(node.node_id, attempt)  # a draining node finishes only attempts that have a slot
            elif position >= started and out.now - node.held[attempt] > RECALL_S:
                # The attempts in the slots take longer than expected; this one may get a slot on another node sooner.
                node.raise_mean(RECALL_S)
                out.recall(node.node_id, attempt)
            if entry.cancelled and out.now - entry.stop_sent_at > STOP_AGAIN_S:
                self._stop(entry, out)  # the first stop may have been lost, or have overtaken the hand-over

    def _never_arrived(self, node: NodeRecord, attempt: AttemptId, out: Collector) -> None:
        node.drop(attempt)
        entry = self._job_on(node.node_id, attempt)
        if entry is None:
            return
        if entry.second is not None:
            self._continue_with_other(entry, attempt, out, began=False)
        else:
            entry.count(unstarted=1)
            self._requeue(entry, out, charge=False)

    def _adopt(self, node: NodeRecord, attempt: AttemptId, out: Collector, *, runs: bool) -> None:
        """Handle an attempt that this leader did not hand over: adopt it if its job has no other attempt."""
        entry = self._jobs.get(attempt.job_id)
        if entry is not None and entry.node_id is None:
            self._backlog.remove(attempt.job_id)
            entry.counts = entry.counts.known_up_to(attempt.number)
            entry.number, entry.node_id = attempt.number, node.node_id
            entry.moved = entry.recorded = False
            node.held[attempt] = out.now
            if runs:
                self._record_running(entry, out)
            return
        node.foreign += 1
        if entry is None:
            unwanted = attempt.job_id in self._ended or attempt.job_id in self._gone
        else:
            unwanted = not entry.unconfirmed  # an unconfirmed attempt may be lost; then this one replaces it
        if unwanted:
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
        self._touch(node_id)
        lost: list[Entry] = []
        for attempt in node.held:
            entry = self._job_on(node_id, attempt)
            if entry is None:
                continue
            if entry.second is not None:
                self._continue_with_other(entry, attempt, out, began=True)
                entry.suspect = True
            else:
                lost.append(entry)
        charged = suspects.losses_to_charge(lost, self.policy.retry.max_attempts)
        for entry in lost:
            entry.suspect |= not entry.unconfirmed  # an unconfirmed attempt is charged only if its node reports it
        for entry, charge in zip(lost, charged, strict=True):
            if entry.recorded:
                message = f"node {node_id} was lost: {why}"
                report = AttemptReport(entry.current, Outcome.LOST, message=message)
                self._try_again(entry, report, node_id, out, charge=charge)
            else:
                entry.count(unstarted=1)
                self._requeue(entry, out, charge=False)

    def _node_draining(self, event: NodeDraining, out: Collector) -> None:
        """Start, change or end the drain of a node."""
        if event.draining:
            self._drains[event.node_id] = event.deadline_at
        else:
            self._drains.pop(event.node_id, None)
        if event.node_id in self.nodes:
            self._mark_drain(self.nodes[event.node_id])
        self._touch(event.node_id)
        self._move_overdue(out)

    def _move_overdue(self, out: Collector) -> None:
        """Stop the attempts that draining nodes hold after their deadline; their jobs are queued again at the end."""
        for node in self.nodes.values():
            if node.drain_deadline_at is None or node.drain_deadline_at > out.now:
                continue
            for attempt in node.held:
                entry = self._job_on(node.node_id, attempt)
                if entry is None:
                    continue
                if entry.second is not None:
                    out.stop(node.node_id, attempt)
                elif out.now - entry.stop_sent_at > STOP_AGAIN_S:
                    entry.moved = True
                    self._stop(entry, out)  # repeated, because a stop may be lost or overtake the hand-over
