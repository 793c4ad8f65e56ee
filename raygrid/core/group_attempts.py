"""The attempts of a group's jobs: how they start, and what comes of their ends."""

from __future__ import annotations

from raygrid.core.collector import Collector
from raygrid.core.entry import Entry, Twin
from raygrid.core.events import AttemptOrder
from raygrid.core.group_jobs import GroupJobs
from raygrid.core.lifecycle import failure_reason, final_state
from raygrid.core.placement import NodeRecord
from raygrid.core.retry import exhausted_reason, too_large_message
from raygrid.core.suspects import at_last_chance
from raygrid.models import INFRASTRUCTURE_OUTCOMES, AttemptId, AttemptReport, JobState, Outcome

PENDING = float("inf")
MOST_RECALLED = 20  # attempts of a job that a full disk may spoil without being charged to the job


class GroupAttempts(GroupJobs):
    """Starts attempts, and decides what the end of one means for its job."""

    def _start(self, entry: Entry, node: NodeRecord, out: Collector) -> None:
        starts_at_once = node.free > 0
        entry.attempts += 1
        entry.number = entry.attempts
        entry.node_id = node.node_id
        entry.recorded = entry.moved = False
        node.held[entry.current] = PENDING
        self._touch(node.node_id)
        apart = at_last_chance(entry, self.policy.retry.max_attempts)
        out.start(node.node_id, AttemptOrder(entry.current, entry.spec, self.blobs, apart))
        if starts_at_once:
            self._record_running(entry, out)

    def _double(self, entry: Entry, node: NodeRecord, out: Collector) -> None:
        """Have a job that runs attempted on another node too."""
        entry.attempts += 1
        entry.doubled = True
        attempt = AttemptId(entry.spec.job_id, entry.attempts)
        entry.twin = Twin(attempt, node.node_id, out.now)
        node.held[attempt] = PENDING
        self._touch(node.node_id)
        out.start(node.node_id, AttemptOrder(attempt, entry.spec, self.blobs))
        out.update(entry.update(JobState.RUNNING, out.instant(entry.since), entry.node_id))

    def _one_less(self, entry: Entry, attempt: AttemptId, out: Collector, *, began: bool) -> None:
        """Of a job's two attempts one came to nothing: the other goes on, and it costs the job nothing."""
        twin = entry.twin
        assert twin is not None
        entry.twin = None
        entry.recalled += 1
        entry.unstarted += not began
        if attempt != entry.current:
            return
        entry.number, entry.node_id, entry.since = twin.attempt.number, twin.node_id, twin.since
        entry.recorded, entry.moved, entry.unconfirmed = True, False, False
        out.update(entry.update(JobState.RUNNING, out.instant(entry.since), entry.node_id))

    @staticmethod
    def _record_running(entry: Entry, out: Collector) -> None:
        """Tell the store that the attempt runs. One that still waits on its node is told of when it has a slot.

        Many short jobs are over by then: their start and end are one write.
        """
        entry.recorded = True
        entry.since = out.now
        out.update(entry.update(JobState.RUNNING, out.at, entry.node_id))

    def _attempt_ended(self, node: NodeRecord | None, report: AttemptReport, node_id: str, out: Collector) -> None:
        if node is not None:
            node.held.pop(report.attempt, None)
            node.uncertain.discard(report.attempt)
            self._learn(node, report, out)
        entry = self._jobs.get(report.attempt.job_id)
        if entry is None:
            return  # ended already, or not this group's
        # A leader before this one may have started more attempts than it could record.
        entry.attempts = max(entry.attempts, report.attempt.number)
        is_held = (node_id, report.attempt) in entry.places()
        began = report.outcome is not Outcome.CANCELLED or report.started_at is not None
        if not self._is_answer(entry, report):
            if is_held and entry.twin is not None:
                self._one_less(entry, report.attempt, out, began=began)
            elif is_held:
                entry.unstarted += not began
                self._came_to_nothing(entry, report, node_id, out)
            return
        # The first answer wins, be it of an attempt that was thought lost; any other is stopped.
        self._release(entry, out, stop=True, answered=(node_id, report.attempt))
        entry.unstarted += is_held and not began
        why = "cancelled" if report.outcome is Outcome.CANCELLED else failure_reason(report)
        state, message = final_state(report), report.message
        self._end(entry, state, out, reason=why, report=report, message=message, node_id=node_id)

    def _is_answer(self, entry: Entry, report: AttemptReport) -> bool:
        """Whether the end of an attempt is that of its job: the pricer's word, or what the client has asked for."""
        if report.outcome in INFRASTRUCTURE_OUTCOMES:
            return False
        if entry.cancelled:
            return True
        retry = self.policy.retry
        again = retry.wants_another(entry.spec.pricer, report, entry.charged + 1)
        return report.outcome is not Outcome.CANCELLED and not again

    def _came_to_nothing(self, entry: Entry, report: AttemptReport, node_id: str, out: Collector) -> None:
        """The only attempt of a job has ended without an answer."""
        if report.outcome is Outcome.MEMORY_PRESSURE and not (entry.moved or (report.crowded and entry.alone)):
            self._did_not_fit(entry, report, node_id, out)
            return
        if report.outcome is Outcome.DISK_FULL and entry.recalled < MOST_RECALLED:
            entry.recalled += 1  # some other job filled the disk; the node takes no work until there is room again
            self._requeue(entry, out, charge=False)
            return
        if report.outcome in INFRASTRUCTURE_OUTCOMES:
            self._try_again(entry, report, node_id, out)
            return
        if report.outcome is Outcome.CANCELLED:  # killed for the grid's reasons, not the client's: it costs nothing
            entry.recalled += entry.moved or not entry.recorded
        else:
            entry.charged += 1
        self._requeue(entry, out, charge=False)

    def _did_not_fit(self, entry: Entry, report: AttemptReport, node_id: str, out: Collector) -> None:
        """A job was killed because its node ran out of memory: it runs alone next; if it did already, it has failed.

        The first time costs it no attempt, for jobs beside it may have been the cause.
        """
        if not entry.alone or entry.cancelled:
            entry.alone = True
            self._requeue(entry, out, charge=False)
            return
        entry.charged += 1
        message = too_large_message(report, entry.spec.pricer, node_id)
        state, why = JobState.FAILED, Outcome.MEMORY_PRESSURE.value
        self._end(entry, state, out, reason=why, report=report, message=message, node_id=node_id)

    def _learn(self, node: NodeRecord, report: AttemptReport, out: Collector) -> None:
        entry = self._jobs.get(report.attempt.job_id)
        pricer, runs = (entry.spec.pricer, entry.runs) if entry else ("", "")
        policy = self.policy
        if report.outcome is Outcome.CANNOT_START:
            node.could_not_start(runs, out.now, policy.probation_after, policy.probation_s)
        elif report.outcome is Outcome.INFRASTRUCTURE:
            node.failed(out.now, policy.probation_after, policy.probation_s)
        elif report.outcome not in (
            Outcome.LOST,
            Outcome.INPUT_LOST,
            Outcome.DEFINITION_LOST,
            Outcome.CANCELLED,
            Outcome.DISK_FULL,
            Outcome.MEMORY_PRESSURE,  # the job was too large for what was left; the node is as good as any
        ):
            node.succeeded(runs)
            if report.started_at is not None and report.ended_at is not None:
                took_s = (report.ended_at - report.started_at).total_seconds()
                node.saw_duration(took_s)
                is_done = report.outcome is Outcome.EXITED and report.exit_code == 0
                if is_done and pricer in policy.stragglers:
                    self._usual.saw(pricer, took_s)

    def _try_again(
        self, entry: Entry, report: AttemptReport, node_id: str, out: Collector, *, charge: bool = True
    ) -> None:
        """An attempt failed for the grid's reasons: run it elsewhere, unless it has had its attempts."""
        if entry.moved or not charge or (entry.unconfirmed and report.outcome is Outcome.LOST):
            # Its node was to be rid of it anyway; or another job may have been the cause; or the grid was restarted in
            # order, or leader and node went together: nothing says that the job had a part in it. (Where everything
            # ended at once, the node names the attempt when it comes up again: see `group_leftovers`.)
            entry.recalled += entry.moved
            if entry.unconfirmed:
                entry.given_up = node_id, report.attempt.number
            self._requeue(entry, out, charge=False)
            return
        entry.charged += 1
        entry.lost += report.outcome is Outcome.LOST
        entry.failed_on |= {node_id}
        retry = self.policy.retry
        exhausted = entry.charged >= retry.max_attempts or entry.attempts - entry.recalled >= retry.hard_limit
        if exhausted and not entry.cancelled:
            reason, message = exhausted_reason(report, entry.charged, all_lost=entry.lost >= entry.charged)
            self._end(entry, JobState.FAILED, out, reason=reason, report=report, message=message, node_id=node_id)
            return
        self._requeue(entry, out, charge=True)
