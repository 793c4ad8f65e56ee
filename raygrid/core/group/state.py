"""The state machine of a group: the decisions of its leader.

`GroupState.handle(event, now)` takes an event and returns commands. The state has the waiting jobs, the attempts that
each node holds, and a record of every unfinished job in memory; the job store remains the truth. The leader carries out
the commands and returns their outcome as further events.

The class has five layers, one file each: `jobs`, `attempts`, `leftovers`, `nodes`, and here events, time and placement.
"""

from __future__ import annotations

from raygrid.core.group import suspects
from raygrid.core.group.collector import Collector
from raygrid.core.group.entry import Entry
from raygrid.core.group.events import (
    CancelRequested,
    Command,
    Event,
    HandOverEnded,
    JobsArrived,
    JobsMoved,
    NodeDraining,
    NodeHeard,
    NodeLost,
    NodeReported,
    NodesExpected,
    PolicyChanged,
    Tick,
)
from raygrid.core.group.nodes import GroupNodes
from raygrid.core.group.placement import POLICIES, with_room
from raygrid.core.group.pricers import GRACE_S
from raygrid.core.group.reservations import RETRY_RESERVATION_S
from raygrid.core.group.stragglers import CHECK_S, limits, most_at_once, stragglers
from raygrid.core.group.vacancies import Suits
from raygrid.models import AttemptId, GroupCapacity

UNHEARD = 0.5  # share of the node timeout that applies to a node from which a new leader has had no report yet


class GroupState(GroupNodes):
    """A group's jobs and nodes, and every decision about them."""

    # --- queries ------------------------------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Jobs in memory that have no node."""
        return len(self._backlog)

    @property
    def handed_over(self) -> int:
        """Jobs that wait on a node for a slot; the store still has them as queued."""
        return sum(not entry.recorded and entry.node_id is not None for entry in self._jobs.values())

    @property
    def wants_more(self) -> bool:
        """Whether the store should be asked for further jobs."""
        return self.queued < self.policy.window // 2

    def takes_jobs(self, now: float) -> bool:
        """Whether a node takes jobs (even if it is full), or may take them after its first report."""
        usable = any(node.slots > 0 and node.healthy and not node.draining for node in self.nodes.values())
        return usable or not self._first_reports.are_complete(now)

    def is_held(self, node_id: str, attempt: AttemptId) -> bool:
        """Whether a node holds an attempt according to the record; a lost node holds none."""
        node = self.nodes.get(node_id)
        return node is not None and attempt in node.held

    @property
    def waiting(self) -> list[str]:
        """Ids of the jobs in memory that have no node."""
        return list(self._backlog)

    def capacity(self, now: float, *, queued: int | None = None) -> GroupCapacity:
        """The group's load; `queued` replaces the number of jobs in memory by the store's."""
        waiting = self.queued if queued is None else queued
        return self._load.capacity(self.site, self.policy.quota, waiting, now)

    # --- events in, commands out --------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event and return the commands. `now` is in seconds since the epoch and never decreases."""
        out = Collector(now)
        match event:
            case JobsArrived(jobs, scanned):
                self._add_jobs(jobs, scanned, out)
            case CancelRequested(job_ids):
                for job_id in job_ids:
                    self._cancel(job_id, out)
            case JobsMoved(job_ids):
                self._forget(job_ids, out)
            case NodesExpected(node_ids):
                self._first_reports.expect(node_ids, out.now)
            case NodeReported(state, _, _, found, gone):
                self._first_reports.arrived(state.node_id)
                self._add_looked_up(found, gone, out)
                self._node_reported(event, out)
            case NodeHeard(node_id):
                self._node_heard(node_id, out)
            case NodeLost(node_id):
                self._first_reports.arrived(node_id)
                self._lose_node(node_id, "its Ray node or agent is gone", out)
            case NodeDraining():
                self._node_draining(event, out)
            case HandOverEnded(node_id, attempts, arrived):
                self._hand_over_ended(node_id, attempts, arrived, out)
            case PolicyChanged():
                self._policy_changed(event, out)
            case Tick(confirmed):
                self._tick(confirmed, out)
        self._place(out)
        return out.commands()

    # --- time and placement -------------------------------------------------------------------------------------------

    def _policy_changed(self, event: PolicyChanged, out: Collector) -> None:
        self.policy, self.site = event.policy, event.site
        self._choose = POLICIES[self.policy.placement]
        self._backlog.window = self.policy.window
        self._pricers.changed(self.policy.pricers)
        for node in self.nodes.values():
            node.weight = self.policy.weights.get(node.node_id, 1.0)
            node.behind = node.deployed_at < self.policy.deployed_at
            self._touch(node.node_id)
        for job_id in list(self._backlog):
            entry = self._jobs[job_id]
            if job_id in self._backlog.aside or not self._can_run(entry):
                self._backlog.remove(job_id)
                self._queue(entry, out)

    def _tick(self, confirmed: bool, out: Collector) -> None:
        for job_id, since in list(self._backlog.aside.items()):
            if not confirmed:
                self._backlog.aside[job_id] = out.now
            elif out.now - since > GRACE_S:
                self._refuse(self._jobs[job_id], out)
        self._backlog.release_due(out.now)
        self._move_overdue(out)
        for node in list(self.nodes.values()):
            limit_s = self.policy.node_timeout_s
            if not node.incarnation:
                limit_s *= UNHEARD  # most likely it was lost together with the earlier leader
            if out.now - node.last_seen > limit_s:
                self._lose_node(node.node_id, f"silent for more than {limit_s:g} s", out)
        if self.policy.stragglers and out.now - self._looked_for_stragglers_at >= CHECK_S:
            self._looked_for_stragglers_at = out.now
            self._start_second_attempts(out)

    def _start_second_attempts(self, out: Collector) -> None:
        """Start second attempts of stragglers in slots that would idle."""
        if len(self._backlog) or not self._first_reports.are_complete(out.now):
            return
        nodes = with_room(self.nodes.values(), out.now, 0)
        usable = sum(node.slots for node in self.nodes.values() if node.healthy and not node.draining)
        left = most_at_once(usable) - sum(entry.second is not None for entry in self._jobs.values())
        if self.policy.quota is not None:
            left = min(left, self.policy.quota - sum(node.used for node in self.nodes.values()))
        if not nodes or left <= 0:
            return
        for entry in stragglers(self._jobs.values(), limits(self.policy.stragglers, self._usual), out.now):
            others = [
                node
                for node in nodes
                if node.node_id != entry.node_id
                and node.node_id not in entry.failed_on
                and not node.is_blocked(entry.runs, out.now)
            ]
            if not others or not self._can_run(entry):
                continue
            node = self._choose(others)
            self._start_second(entry, node, out)
            left -= 1
            nodes = [node for node in nodes if node.room(out.now, 0) > 0]
            if left == 0:
                return

    def _place(self, out: Collector) -> None:
        """Hand ready jobs to nodes while there is room, most urgent first."""
        if self._reservations:
            self._start_reserved(out)
        if not self._backlog.ready or not self._first_reports.are_complete(out.now):
            return
        quota, nodes = self.policy.quota, self._vacancies
        factor = self.policy.prefetch if quota is None else 0  # prefetched attempts could start beyond a quota
        nodes.settle(out.now, factor)
        left = self._backlog.ready if quota is None else quota - nodes.used
        aside: list[Entry] = []
        while nodes and left > 0 and self._backlog.ready and len(aside) < 64:
            entry = self._jobs[self._backlog.pop()]
            if entry.alone:
                left -= self._reserve_node(entry, out)
                nodes.settle(out.now, factor)
                continue
            joins = self._may_join(entry) if entry.suspect else None
            if joins is not None and not nodes.any(joins):
                self._backlog.add_later(entry.spec.job_id, entry.spec.priority, out.now + suspects.APART_S)
                continue
            node = nodes.pick(self._choose, entry.failed_on, entry.runs, out.now, joins)
            if node is None:
                aside.append(entry)
                continue
            self._start(entry, node, out)
            nodes.settle(out.now, factor)
            left -= 1
        for entry in reversed(aside):
            self._backlog.add(entry.spec.job_id, entry.spec.priority, first=True)

    def _start_reserved(self, out: Collector) -> int:
        """Start the jobs whose reserved node is empty; return how many."""
        started, aside = 0, self._backlog.aside
        for node, entry in self._reservations.ready(self._jobs, aside, out.now, others_wait=self._others_wait):
            quota = self.policy.quota
            if quota is None or sum(each.used for each in self.nodes.values()) < quota:
                self._backlog.remove(entry.spec.job_id)
                self._start(entry, node, out)
                started += 1
        return started

    @property
    def _others_wait(self) -> bool:
        """Whether jobs wait that need no reserved node."""
        return any(not self._jobs[job_id].alone for job_id in self._backlog)

    def _reserve_node(self, entry: Entry, out: Collector) -> int:
        """Reserve a node for a job that runs alone, and start the jobs that can start; return how many."""
        self._reservations.reserve(entry, out.now, others_wait=self._others_wait)
        self._backlog.add_later(entry.spec.job_id, entry.spec.priority, out.now + RETRY_RESERVATION_S)
        return self._start_reserved(out)

    def _may_join(self, entry: Entry) -> Suits:
        """Make the test whether a node suits a suspect."""
        jobs, limit = self._jobs, self.policy.retry.max_attempts
        return lambda node: suspects.may_join(entry, node, jobs, limit)
