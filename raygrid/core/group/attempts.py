"""The attempts of a group's jobs: how they start, and what their ends mean for the jobs."""

from __future__ import annotations

from raygrid.core.group.collector import Collector
from raygrid.core.group.entry import Entry, SecondAttempt
from raygrid.core.group.events import AttemptOrder
from raygrid.core.group.jobs import GroupJobs
from raygrid.core.group.placement import NodeRecord
from raygrid.core.group.retry import exhausted_reason, too_large_message
from raygrid.core.group.suspects import at_last_chance
from raygrid.core.lifecycle import failure_reason, final_state
from raygrid.models import INFRASTRUCTURE_OUTCOMES, AttemptId, AttemptReport, JobState, Outcome

PENDING = float("inf")
MOST_RECALLED = 20  # attempts of a job that may end by a full disk without being charged to the job


class GroupAttempts(GroupJobs):
    """Starts attempts, and decides the next step of a job when an attempt ends."""

    def _start(self, entry: Entry, node: NodeRecord, out: Collector) -> None:
        starts_at_once = node.free > 0
        entry.count(started=1)
        entry.number = entry.counts.started
        entry.node_id = node.node_id
        entry.recorded = entry.moved = False
        node.held[entry.current] = PENDING
        self._touch(node.node_id)
        apart = at_last_chance(entry, self.policy.retry.max_attempts)
        out.start(node.node_id, AttemptOrder(entry.current, entry.spec, self.blobs, apart))
        if starts_at_once:
            self._record_running(entry, out)

    def _start_second(self, entry: Entry, node: NodeRecord, out: Collector) -> None:
        """Start a second attempt of a running job on another node."""
        entry.count(started=1)
        entry.had_second = True
        attempt = AttemptId(entry.spec.job_id, entry.counts.started)
        entry.second = SecondAttempt(attempt, node.node_id, out.now)
        node.held[attempt] = PENDING
        self._touch(node.node_id)
        out.start(node.node_id, AttemptOrder(attempt, entry.spec, self.blobs))
        out.update(entry.update(JobState.RUNNING, out.instant(entry.since), entry.node_id))

    def _continue_with_other(self, entry: Entry, attempt: AttemptId, out: Collector, *, began: bool) -> None:
        """One of a job's two attempts ended without an answer: continue with the other, without a charge."""
        second = entry.second
        assert second is not None
        entry.second = None
        entry.count(recalled=1)
        entry.count(unstarted=not began)
        if attempt != entry.current:
            return
        entry.number, entry.node_id, entry.since = second.attempt.number, second.node_id, second.since
        entry.recorded, entry.moved, entry.unconfirmed = True, False, False
        out.update(entry.update(JobState.RUNNING, out.instant(entry.since), entry.node_id))

    @staticmethod
    def _record_running(entry: Entry, out: Collector) -> None:
        """Record the attempt as running. An attempt that waits on its node is recorded once it has a slot.

        Many short jobs have ended by then, so that their start and end are one write.
        """
        entry.recorded = True
        entry.since = out.now
        out.update(entry.update(JobState.RUNNING, out.at, entry.node_id))

    def _attempt_ended(self, node: NodeRecord, report: AttemptReport, out: Collector) -> None:
        node_id = node.node_id
        node.drop(report.attempt)
        self._update_node(node, report, out)
        entry = self._jobs.get(report.attempt.job_id)
        if entry is None:
            return  # the job has ended already, or belongs to another group
        # An earlier leader may have started more attempts than it could record.
        entry.counts = entry.counts.known_up_to(report.attempt.number)
        is_held = (node_id, report.attempt) in entry.places()
        began = report.outcome is not Outcome.CANCELLED or report.started_at is not None
        if not self._is_answer(entry, report):
            if is_held and entry.second is not None:
                self._continue_with_other(entry, report.attempt, out, began=began)
            elif is_held:
                entry.count(unstarted=not began)
                self._ended_without_answer(entry, report, node_id, out)
            return
        # The first answer counts, even if its attempt was taken for lost; other attempts are stopped.
        self._release(entry, out, stop=True, answered=(node_id, report.attempt))
        entry.count(unstarted=is_held and not began)
        why = "cancelled" if report.outcome is Outcome.CANCELLED else failure_reason(report)
        state, message = final_state(report), report.message
        self._end(entry, state, out, reason=why, report=report, message=message, node_id=node_id)

    def _is_answer(self, entry: Entry, report: AttemptReport) -> bool:
        """Whether the end of an attempt ends its job: the pricer has answered, or the client has cancelled."""
        if report.outcome in INFRASTRUCTURE_OUTCOMES:
            return False
        if entry.cancelled:
            return True
        retry = self.policy.retry
        again = retry.wants_another(entry.spec.pricer, report, entry.counts.failures + 1)
        return report.outcome is not Outcome.CANCELLED and not again

    def _ended_without_answer(self, entry: Entry, report: AttemptReport, node_id: str, out: Collector) -> None:
        """Handle the end of a job's only attempt that gave no answer."""
        if report.outcome is Outcome.MEMORY_PRESSURE and not (entry.moved or (report.crowded and entry.alone)):
            self._ran_out_of_memory(entry, report, node_id, out)
            return
        if report.outcome is Outcome.DISK_FULL and entry.counts.recalled < MOST_RECALLED:
            entry.count(recalled=1)  # another job filled the disk; the node takes no work until there is room again
            self._requeue(entry, out, charge=False)
            return
        if report.outcome in INFRASTRUCTURE_OUTCOMES:
            self._try_again(entry, report, node_id, out)
            return
        if report.outcome is Outcome.CANCELLED:  # stopped by the grid, not by the client: not charged
            entry.count(recalled=entry.moved or not entry.recorded)
        else:
            entry.count(failures=1)
        self._requeue(entry, out, charge=False)

    def _ran_out_of_memory(self, entry: Entry, report: AttemptReport, node_id: str, out: Collector) -> None:
        """Handle a kill because the node ran out of memory: run the job alone next, or fail it if it ran alone.

        The first kill is not charged, because other jobs on the node may have been the cause.
        """
        if not entry.alone or entry.cancelled:
            entry.alone = True
            self._requeue(entry, out, charge=False)
            return
        entry.count(failures=1)
        message = too_large_message(report, entry.spec.pricer, node_id)
        state, why = JobState.FAILED, Outcome.MEMORY_PRESSURE.value
        self._end(entry, state, out, reason=why, report=report, message=message, node_id=node_id)

    def _update_node(self, node: NodeRecord, report: AttemptReport, out: Collector) -> None:
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
            Outcome.MEMORY_PRESSURE,  # the job was too large for the free memory; the node is not at fault
        ):
            node.succeeded(runs)
            if report.started_at is not None and report.ended_at is not None:
                took_s = (report.ended_at - report.started_at).total_seconds()
                node.record_duration(took_s)
                is_done = report.outcome is Outcome.EXITED and report.exit_code == 0
                if is_done and pricer in policy.stragglers:
                    self._usual.add(pricer, took_s)

    def _try_again(
        self, entry: Entry, report: AttemptReport, node_id: str, out: Collector, *, charge: bool = True
    ) -> None:
        """Run a job on another node after an infrastructure failure, or fail it if it has no attempts left."""
        if entry.moved or not charge or (entry.unconfirmed and report.outcome is Outcome.LOST):
            # Not charged: the attempt was being moved, another job may have been the cause, or the grid was restarted
            # (or leader and node were lost together), which is no evidence against the job. If all processes of a
            # machine ended at once, the node reports the attempt after its restart: see `leftovers`.
            entry.count(recalled=entry.moved)
            if entry.unconfirmed:
                entry.given_up = node_id, report.attempt.number
            self._requeue(entry, out, charge=False)
            return
        entry.count(failures=1)
        entry.count(losses=report.outcome is Outcome.LOST)
        entry.failed_on |= {node_id}
        retry = self.policy.retry
        exhausted = entry.counts.failures >= retry.max_attempts or entry.counts.not_recalled >= retry.hard_limit
        if exhausted and not entry.cancelled:
            reason, message = exhausted_reason(
                report, entry.counts.failures, all_lost=entry.counts.losses >= entry.counts.failures
            )
            self._end(entry, JobState.FAILED, out, reason=reason, report=report, message=message, node_id=node_id)
            return
        self._requeue(entry, out, charge=True)
