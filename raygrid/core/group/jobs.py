"""The jobs of a group: how they come, wait, go back in line and end.

The lowest of the layers that `GroupState` is made of: `GroupJobs`, then `GroupAttempts`, then `GroupNodes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from raygrid.core.attempt_counts import NO_ATTEMPTS
from raygrid.core.group.alone import Alone
from raygrid.core.group.backlog import Backlog
from raygrid.core.group.collector import Collector
from raygrid.core.group.draining import Drains
from raygrid.core.group.entry import Entry
from raygrid.core.group.introductions import Introductions
from raygrid.core.group.load import GroupLoad
from raygrid.core.group.placement import POLICIES, NodeRecord
from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.pricers import Pricers, removed_message
from raygrid.core.group.stragglers import UsualTimes
from raygrid.core.group.vacancies import Vacancies
from raygrid.models import AttemptId, AttemptReport, JobState, JobUpdate, Outcome, QueuedJob

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
        self._usual = UsualTimes()
        self._looked_for_stragglers_at = 0.0
        self._ended: OrderedDict[str, None] = OrderedDict()  # late word of these must not revive them
        self._gone: OrderedDict[str, None] = OrderedDict()  # not in the store, for now, as this group's and unfinished
        self._choose = POLICIES[policy.placement]
        self._vacancies = Vacancies(self.nodes)
        self._load = GroupLoad(group_id, self.nodes)
        self._alone = Alone(self.nodes, self._touch)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def is_unknown(self, job_id: str) -> bool:
        """Whether only the store can tell if a job is this group's and unfinished."""
        return job_id not in self._jobs and job_id not in self._ended and job_id not in self._gone

    def has_ended(self, job_id: str) -> bool:
        """Whether a job ended here lately, so that further word of it is passed over."""
        return job_id in self._ended

    def _take_up(self, jobs: Iterable[QueuedJob], scanned: bool, out: Collector) -> None:
        if scanned:
            self._backlog.scanned()
        for job in jobs:
            self._arrived(job, out)

    def _looked_up(self, found: Iterable[QueuedJob], gone: Iterable[str], out: Collector) -> None:
        """The store was asked for jobs that a node speaks of."""
        for job in found:
            self._arrived(job, out, held=True)
        for job_id in gone:
            self._remember_gone(job_id)

    def _arrived(self, job: QueuedJob, out: Collector, *, held: bool = False) -> None:
        """Take a job in; one that a node has `held` is taken whatever the window, for nodes bound them."""
        job_id = job.spec.job_id
        if job_id in self._jobs or job_id in self._ended:
            return
        if not (job.running or held or self._backlog.admits(job.spec.priority)):
            return  # the store keeps it; a scan brings it back when there is room
        self._gone.pop(job_id, None)
        entry = self._jobs[job_id] = Entry.of(job)
        if job.running and job.node_id is not None:
            # Found at recovery, its attempt not failed yet: the node will tell, or fall silent and be lost.
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
            self._line_up(entry, out)

    def _new_node(self, node_id: str, incarnation: str, slots: int, out: Collector) -> NodeRecord:
        node = self.nodes[node_id] = NodeRecord(node_id, incarnation, slots, last_seen=out.now)
        node.weight = self.policy.weights.get(node_id, 1.0)
        self._drains.mark(node)
        self._touch(node_id)
        return node

    def _touch(self, node_id: str) -> None:
        """A node has come, gone or changed: how much it holds, takes, is trusted, or says of itself."""
        self._vacancies.touch(node_id)
        self._load.touch(node_id)

    def _cancel(self, job_id: str, out: Collector) -> None:
        entry = self._jobs.get(job_id)
        if entry is None:
            if job_id not in self._ended:
                # It waits in the store only. The store refuses the write if the job has ended meanwhile.
                self._remember_end(job_id)
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
        self._remember_end(job_id)
        out.update(entry.update(state, out.at, node_id, reason=reason, report=report, message=message))

    def _forget(self, job_ids: Iterable[str], out: Collector) -> None:
        """Jobs are another group's: nothing is written of them, and should one come back it is welcome."""
        for job_id in job_ids:
            self._ended.pop(job_id, None)
            entry = self._jobs.pop(job_id, None)
            if entry is not None:
                self._backlog.remove(job_id)
                self._release(entry, out, stop=True)

    def _remember_end(self, job_id: str) -> None:
        _remember(self._ended, job_id)

    def _remember_gone(self, job_id: str) -> None:
        """Unlike an end this is not for good: the job may be moved to this group."""
        if self.is_unknown(job_id):
            _remember(self._gone, job_id)

    def _requeue(self, entry: Entry, out: Collector, *, charge: bool) -> None:
        """Put a job back in line whose attempt came to nothing, unless it is cancelled or has gone round too often."""
        if entry.cancelled:
            state, why, message = JobState.CANCELLED, "cancelled", "cancelled"
        elif entry.counts.of_own_doing >= self.policy.retry.hard_limit:
            state, why = JobState.FAILED, Outcome.INFRASTRUCTURE.value
            message = f"gave up after {entry.counts.started} attempts, most of which never ran"
        else:
            self._wait_again(entry, out, charge=charge)
            return
        self._end(entry, state, out, reason=why, message=message, node_id=entry.node_id)

    def _wait_again(self, entry: Entry, out: Collector, *, charge: bool) -> None:
        entry.node_id = None
        entry.unconfirmed = False
        out.update(entry.update(JobState.QUEUED, out.at))
        usable = (node.node_id for node in self.nodes.values() if node.healthy and not node.draining)
        others = any(node_id not in entry.failed_on for node_id in usable)
        delay = 0.0 if others or not charge else self.policy.retry.delay_s(entry.counts.failures)
        self._line_up(entry, out, first=True, delay=delay)

    def _line_up(self, entry: Entry, out: Collector, *, first: bool = False, delay: float = 0.0) -> None:
        """Let a job wait for a node, or for its pricer to become known; refuse it where that cannot come."""
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
        """Whether nodes can know what a job runs: one with a definition needs no pricer in the settings of now."""
        return bool(entry.spec.definition) or entry.spec.pricer in self._pricers

    def _refuse(self, entry: Entry, out: Collector) -> None:
        message = removed_message(entry.spec.pricer)
        self._end(entry, JobState.FAILED, out, reason="unknown_pricer", message=message)

    def _release(
        self, entry: Entry, out: Collector, *, stop: bool, answered: tuple[str, AttemptId] | None = None
    ) -> None:
        """Take a job's attempts off the books of their nodes, and have those stopped that have not answered.

        What answered is named with its node: a new leader may believe it to be on another one.
        """
        for node_id, attempt in entry.places():
            node = self.nodes.get(node_id)
            if node is None or (node_id, attempt) == answered:
                continue
            node.held.pop(attempt, None)
            self._touch(node_id)
            node.uncertain.discard(attempt)
            if attempt == entry.current:
                entry.count(unstarted=not entry.recorded)
            if stop:
                out.stop(node_id, attempt)
        entry.node_id = entry.twin = None


def _remember(ids: OrderedDict[str, None], job_id: str) -> None:
    ids[job_id] = None
    if len(ids) > REMEMBERED_ENDS:
        ids.popitem(last=False)
