"""The state machine of a group: what its leader decides.

`GroupState.handle(event, now)` takes what happened and returns what to do. It holds the waiting line, what each
node holds, and what is known of every unfinished job in memory; the job store stays the truth. The leader carries
the commands out and brings back what came of them as further events.

It is made in layers, one file each: `group_jobs`, `group_attempts`, `group_leftovers`, `group_nodes`, and here what
happens and when.
"""

from __future__ import annotations

from raygrid.core import alone, suspects
from raygrid.core.collector import Collector
from raygrid.core.entry import Entry
from raygrid.core.events import (
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
from raygrid.core.group_nodes import GroupNodes
from raygrid.core.placement import POLICIES, with_room
from raygrid.core.pricers import GRACE_S
from raygrid.core.stragglers import CHECK_S, limits, most_at_once, stragglers
from raygrid.core.vacancies import Suits
from raygrid.models import AttemptId, GroupCapacity

UNHEARD = 0.5  # part of the silence that is borne from a node that a new leader has not heard yet


class GroupState(GroupNodes):
    """A group's jobs and nodes, and every decision about them."""

    # --- what others may ask ------------------------------------------------------------------------------------------

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

    def takes_jobs(self, now: float) -> bool:
        """Whether some node takes jobs, be it full, or may do so as soon as it has spoken."""
        usable = any(node.slots > 0 and node.healthy and not node.draining for node in self.nodes.values())
        return usable or not self._introductions.are_over(now)

    def is_held(self, node_id: str, attempt: AttemptId) -> bool:
        """Whether an attempt was handed to a node and not given up since; a lost node has none."""
        node = self.nodes.get(node_id)
        return node is not None and attempt in node.held

    @property
    def waiting(self) -> list[str]:
        """Ids of the jobs in memory that have no node."""
        return list(self._backlog)

    def capacity(self, now: float, *, queued: int | None = None) -> GroupCapacity:
        """The group's load; `queued` where the store knows better than the window in memory."""
        waiting = self.queued if queued is None else queued
        return self._load.capacity(self.site, self.policy.quota, waiting, now)

    # --- events in, commands out --------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at `now` (seconds since the epoch, never falling) and return what to do."""
        out = Collector(now)
        match event:
            case JobsArrived(jobs, scanned):
                self._take_up(jobs, scanned, out)
            case CancelRequested(job_ids):
                for job_id in job_ids:
                    self._cancel(job_id, out)
            case JobsMoved(job_ids):
                self._forget(job_ids, out)
            case NodesExpected(node_ids):
                self._introductions.expect(node_ids, out.now)
            case NodeReported(state, _, _, found, gone):
                self._introductions.heard(state.node_id)
                self._looked_up(found, gone, out)
                self._node_reported(event, out)
            case NodeHeard(node_id):
                self._node_heard(node_id, out)
            case NodeLost(node_id):
                self._introductions.heard(node_id)
                self._lose_node(node_id, "its Ray node or agent is gone", out)
            case NodeDraining(node_id):
                self._drains.told(event, self.nodes.get(node_id))
                self._touch(node_id)
                self._move_overdue(out)
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
                self._line_up(entry, out)

    def _tick(self, confirmed: bool, out: Collector) -> None:
        for job_id, since in list(self._backlog.aside.items()):
            if not confirmed:
                self._backlog.aside[job_id] = out.now
            elif out.now - since > GRACE_S:
                self._refuse(self._jobs[job_id], out)
        self._backlog.ripen(out.now)
        self._move_overdue(out)
        for node in list(self.nodes.values()):
            limit_s = self.policy.node_timeout_s
            if not node.incarnation:
                # This leader has never heard it: most likely it went down together with the leader before.
                limit_s *= UNHEARD
            if out.now - node.last_seen > limit_s:
                self._lose_node(node.node_id, f"silent for more than {limit_s:g} s", out)
        if self.policy.stragglers and out.now - self._looked_for_stragglers_at >= CHECK_S:
            self._looked_for_stragglers_at = out.now
            self._double_stragglers(out)

    def _double_stragglers(self, out: Collector) -> None:
        """Let slots that would idle have a second attempt of jobs that take far too long."""
        if len(self._backlog) or not self._introductions.are_over(out.now):
            return
        nodes = with_room(self.nodes.values(), out.now, 0)
        usable = sum(node.slots for node in self.nodes.values() if node.healthy and not node.draining)
        left = most_at_once(usable) - sum(entry.twin is not None for entry in self._jobs.values())
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
            self._double(entry, node, out)
            left -= 1
            nodes = [node for node in nodes if node.room(out.now, 0) > 0]
            if left == 0:
                return

    def _place(self, out: Collector) -> None:
        """Hand waiting jobs to nodes while there is room, most urgent first."""
        if self._alone:
            self._start_alone(out)
        if not self._backlog.ready or not self._introductions.are_over(out.now):
            return
        quota, nodes = self.policy.quota, self._vacancies
        factor = self.policy.prefetch if quota is None else 0  # what waits on a node could start unseen, beyond a quota
        nodes.settle(out.now, factor)
        left = self._backlog.ready if quota is None else quota - nodes.used
        aside: list[Entry] = []
        while nodes and left > 0 and self._backlog.ready and len(aside) < 64:
            entry = self._jobs[self._backlog.pop()]
            if entry.alone:
                left -= self._wait_for_node_alone(entry, out)
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

    def _start_alone(self, out: Collector) -> int:
        """Start the jobs whose node is kept for them and holds nothing else by now; gives how many."""
        started = 0
        for node, entry in self._alone.ready(self._jobs, self._backlog.aside, out.now, others_wait=self._others_wait):
            quota = self.policy.quota
            if quota is None or sum(each.used for each in self.nodes.values()) < quota:
                self._backlog.remove(entry.spec.job_id)
                self._start(entry, node, out)
                started += 1
        return started

    @property
    def _others_wait(self) -> bool:
        """Whether jobs wait that could run beside others."""
        return any(not self._jobs[job_id].alone for job_id in self._backlog)

    def _wait_for_node_alone(self, entry: Entry, out: Collector) -> int:
        """Have a node kept for a job that runs alone, and start there what can start; gives how many jobs did."""
        self._alone.keep_node(entry, out.now, others_wait=self._others_wait)
        self._backlog.add_later(entry.spec.job_id, entry.spec.priority, out.now + alone.LOOK_AGAIN_S)
        return self._start_alone(out)

    def _may_join(self, entry: Entry) -> Suits:
        """Which nodes will do for a suspect."""
        jobs, limit = self._jobs, self.policy.retry.max_attempts
        return lambda node: suspects.may_join(entry, node, jobs, limit)
