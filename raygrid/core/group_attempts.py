"""The attempts of a group's jobs: how they start, and what comes of their ends."""

from __future__ import annotations

from raygrid.core.collector import Collector
from raygrid.core.entry import Entry
from raygrid.core.events import AttemptOrder
from raygrid.core.group_jobs import GroupJobs
from raygrid.core.lifecycle import failure_reason, final_state
from raygrid.core.placement import NodeRecord
from raygrid.core.retry import exhausted_reason
from raygrid.models import INFRASTRUCTURE_OUTCOMES, AttemptReport, JobState, JobUpdate, Outcome

PENDING = float("inf")


class GroupAttempts(GroupJobs):
    """Starts attempts, and decides what the end of one means for its job."""

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
