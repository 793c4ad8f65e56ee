"""The jobs of a group: how they come, wait, go back in line and end.

The lowest of the layers that `GroupState` is made of: `GroupJobs`, then `GroupAttempts`, then `GroupNodes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from raygrid.core.backlog import Backlog
from raygrid.core.collector import Collector
from raygrid.core.draining import Drains
from raygrid.core.entry import Entry
from raygrid.core.introductions import Introductions
from raygrid.core.placement import POLICIES, NodeRecord
from raygrid.core.policy import GroupPolicy
from raygrid.core.pricers import Pricers, removed_message
from raygrid.models import AttemptReport, JobState, JobUpdate, Outcome, QueuedJob

REMEMBERED_ENDS = 50_000


class GroupJobs:
    """What a group knows of its unfinished jobs, and of the nodes that hold them."""

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

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def _take_up(self, jobs: Iterable[QueuedJob], scanned: bool, out: Collector) -> None:
        if scanned:
            self._backlog.scanned()
        for job in jobs:
            self._arrived(job, out)

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

    def _new_node(self, node_id: str, incarnation: str, slots: int, out: Collector) -> NodeRecord:
        node = self.nodes[node_id] = NodeRecord(node_id, incarnation, slots, last_seen=out.now)
        node.weight = self.policy.weights.get(node_id, 1.0)
        self._drains.mark(node)
        return node

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

    def _forget(self, job_ids: Iterable[str], out: Collector) -> None:
        """Jobs are another group's: nothing is written of them, and should one come back it is welcome."""
        for job_id in job_ids:
            self._ended.pop(job_id, None)
            entry = self._jobs.pop(job_id, None)
            if entry is not None:
                self._backlog.remove(job_id)
                self._release(entry, out, stop=True)

    def _remember_end(self, job_id: str) -> None:
        self._ended[job_id] = None
        if len(self._ended) > REMEMBERED_ENDS:
            self._ended.popitem(last=False)

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
