"""The jobs of a group: how they arrive, wait, are queued again and end.

The lowest layer of `GroupState`: `GroupJobs`, `GroupAttempts`, `GroupLeftovers`, `GroupNodes`, `GroupState`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from raygrid.core.attempt_counts import NO_ATTEMPTS
from raygrid.core.group.backlog import Backlog
from raygrid.core.group.collector import Collector
from raygrid.core.group.entry import Entry
from raygrid.core.group.first_reports import FirstReports
from raygrid.core.group.load import GroupLoad
from raygrid.core.group.placement import POLICIES, NodeRecord
from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.pricers import Pricers, removed_message
from raygrid.core.group.reservations import NodeReservations
from raygrid.core.group.stragglers import UsualTimes
from raygrid.core.group.vacancies import Vacancies
from raygrid.models import AttemptId, AttemptReport, JobState, JobUpdate, Outcome, QueuedJob

REMEMBERED_ENDS = 50_000


class GroupJobs:
    """The unfinished jobs of a group, and the nodes that hold them."""

    def __init__(self, group_id: str, policy: GroupPolicy, *, site: str | None = None) -> None:
        self.group_id = group_id
        self.site = site
        self.policy = policy
        self.nodes: dict[str, NodeRecord] = {}
        self.blobs: str | None = None  # the marker that a node must see to get work; None accepts any
        self._jobs: dict[str, Entry] = {}
        self._backlog = Backlog(policy.window)
        self._drains: dict[str, float | None] = {}  # deadlines by node, also of nodes that the group does not have
        self._first_reports = FirstReports()
        self._pricers = Pricers(policy.pricers)
        self._usual = UsualTimes()
        self._looked_for_stragglers_at = 0.0
        self._ended: OrderedDict[str, None] = OrderedDict()  # later reports of these jobs are ignored
        self._gone: OrderedDict[str, None] = OrderedDict()  # ended, or of other groups; may be moved here later
        self._choose = POLICIES[policy.placement]
        self._vacancies = Vacancies(self.nodes)
        self._load = GroupLoad(group_id, self.nodes)
        self._reservations = NodeReservations(self.nodes, self._touch)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def is_unknown(self, job_id: str) -> bool:
        """Whether only the store knows if a job is an unfinished one of this group."""
        return job_id not in self._jobs and job_id not in self._ended and job_id not in self._gone

    def _job_on(self, node_id: str, attempt: AttemptId) -> Entry | None:
        """The job of an attempt; None unless this attempt is one of the job's on that node."""
        entry = self._jobs.get(attempt.job_id)
        return entry if entry is not None and (node_id, attempt) in entry.places() else None

    def has_ended(self, job_id: str) -> bool:
        """Whether a job ended here lately, so that further reports of it are ignored."""
        return job_id in self._ended

    def _add_jobs(self, jobs: Iterable[QueuedJob], scanned: bool, out: Collector) -> None:
        if scanned:
            self._backlog.scanned()
        for job in jobs:
            self._add_job(job, out)

    def _add_looked_up(self, found: Iterable[QueuedJob], gone: Iterable[str], out: Collector) -> None:
        """Take the store's answer about jobs that a node reported."""
        for job in found:
            self._add_job(job, out, held=True)
        for job_id in filter(self.is_unknown, gone):
            _remember(self._gone, job_id)

    def _add_job(self, job: QueuedJob, out: Collector, *, held: bool = False) -> None:
        """Take a job in. One that a node holds (`held`) may exceed the window: the nodes' slots bound their number."""
        job_id = job.spec.job_id
        if job_id in self._jobs or job_id in self._ended:
            return
        if not (job.running or held or self._backlog.admits(job.spec.priority)):
            return  # the job stays in the store; a scan finds it when the window has room
        self._gone.pop(job_id, None)
        entry = self._jobs[job_id] = Entry.of(job)
        if job.running and job.node_id is not None:
            # Found at recovery: the node either reports the attempt, or stays silent and is taken for lost.
            entry.node_id = job.node_id
            entry.unconfirmed = entry.recorded = True
            entry.since = out.now
            node = self.nodes.get(job.node_id) or self._new_node(job.node_id, "", 0, out)
            node.held[entry.current] = out.now
            self._touch(node.node_id)
            if entry.cancelled:
                self._stop(entry, out)
        elif entry.cancelled:
            self._end(entry, JobState.CANCELLED, out, reason="cancelled", message="cancelled before it started")
        else:
            self._queue(entry, out)

    def _new_node(self, node_id: str, incarnation: str, slots: int, out: Collector) -> NodeRecord:
        node = self.nodes[node_id] = NodeRecord(node_id, incarnation, slots, last_seen=out.now)
        node.weight = self.policy.weights.get(node_id, 1.0)
        self._mark_drain(node)
        self._touch(node_id)
        return node

    def _mark_drain(self, node: NodeRecord) -> None:
        """Set the drain fields of a node; a drain belongs to the node's name and outlives its record."""
        node.draining = node.node_id in self._drains
        node.drain_deadline_at = self._drains.get(node.node_id)

    def _touch(self, node_id: str) -> None:
        """Have a node evaluated again that was added, removed or changed in any way."""
        self._vacancies.touch(node_id)
        self._load.touch(node_id)

    def _cancel(self, job_id: str, out: Collector) -> None:
        entry = self._jobs.get(job_id)
        if entry is None:
            if job_id not in self._ended:
                # The job waits in the store only. The store refuses the write if the job has ended meanwhile.
                _remember(self._ended, job_id)
                why = "cancelled before it started"
                out.update(JobUpdate(job_id, JobState.CANCELLED, NO_ATTEMPTS, None, out.at, "cancelled", None, why))
            return
        entry.cancelled = True
        if entry.node_id is not None:
            self._stop(entry, out)
        else:
            self._end(entry, JobState.CANCELLED, out, reason="cancelled", message="cancelled while it waited")

    def _stop(self, entry: Entry, out: Collector) -> None:
        entry.stop_sent_at = out.now
        for node_id, attempt in entry.places():
            out.stop(node_id, attempt)

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
        _remember(self._ended, job_id)
        out.update(entry.update(state, out.at, node_id, reason=reason, report=report, message=message))

    def _forget(self, job_ids: Iterable[str], out: Collector) -> None:
        """Drop jobs that belong to another group now: nothing is written, and each may return later."""
        for job_id in job_ids:
            self._ended.pop(job_id, None)
            entry = self._jobs.pop(job_id, None)
            if entry is not None:
                self._backlog.remove(job_id)
                self._release(entry, out, stop=True)

    def _requeue(self, entry: Entry, out: Collector, *, charge: bool) -> None:
        """Queue a job again after an attempt without an answer; end it if it is cancelled or had too many attempts."""
        if entry.cancelled:
            state, why, message = JobState.CANCELLED, "cancelled", "cancelled"
        elif entry.counts.not_recalled >= self.policy.retry.hard_limit:
            state, why = JobState.FAILED, Outcome.INFRASTRUCTURE.value
            message = f"gave up after {entry.counts.started} attempts, most of which never began"
        else:
            self._back_to_queue(entry, out, charge=charge)
            return
        self._end(entry, state, out, reason=why, message=message, node_id=entry.node_id)

    def _back_to_queue(self, entry: Entry, out: Collector, *, charge: bool) -> None:
        entry.node_id = None
        entry.unconfirmed = False
        out.update(entry.update(JobState.QUEUED, out.at))
        usable = (node.node_id for node in self.nodes.values() if node.healthy and not node.draining)
        others = any(node_id not in entry.failed_on for node_id in usable)
        delay = 0.0 if others or not charge else self.policy.retry.delay_s(entry.counts.failures)
        self._queue(entry, out, first=True, delay=delay)

    def _queue(self, entry: Entry, out: Collector, *, first: bool = False, delay: float = 0.0) -> None:
        """Let a job wait for a node, or for settings that have its pricer; refuse it if the pricer was removed."""
        spec = entry.spec
        if not self._can_run(entry):
            if self._pricers.is_removed(spec.pricer):
                self._refuse(entry, out)
            else:
                self._backlog.aside[spec.job_id] = out.now
        elif delay:
            self._backlog.add_later(spec.job_id, spec.priority, out.now + delay)
        else:
            self._backlog.add(spec.job_id, spec.priority, first=first)

    def _can_run(self, entry: Entry) -> bool:
        """Whether nodes can run a job: it has its own definition, or the settings have its pricer."""
        return bool(entry.spec.definition) or entry.spec.pricer in self._pricers

    def _refuse(self, entry: Entry, out: Collector) -> None:
        message = removed_message(entry.spec.pricer)
        self._end(entry, JobState.FAILED, out, reason="unknown_pricer", message=message)

    def _release(
        self, entry: Entry, out: Collector, *, stop: bool, answered: tuple[str, AttemptId] | None = None
    ) -> None:
        """Remove a job's attempts from the records of their nodes, and (`stop`) stop those that have not answered.

        `answered` includes the node, because a new leader may assume the attempt on another one.
        """
        for node_id, attempt in entry.places():
            node = self.nodes.get(node_id)
            if node is None or (node_id, attempt) == answered:
                continue
            node.drop(attempt)
            self._touch(node_id)
            if attempt == entry.current:
                entry.count(unstarted=not entry.recorded)
            if stop:
                out.stop(node_id, attempt)
        entry.node_id = entry.second = None


def _remember(ids: OrderedDict[str, None], job_id: str) -> None:
    ids[job_id] = None
    if len(ids) > REMEMBERED_ENDS:
        ids.popitem(last=False)
