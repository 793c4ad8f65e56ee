"""The attempts that a node agent has accepted, waiting or running, and reports that are given again for further ones.

A job runs once on a node: further attempts of it share the end of the first. Plain values; the agent holds its lock
during each call.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from raygrid.core.group.events import AttemptOrder
from raygrid.models import INFRASTRUCTURE_OUTCOMES, AttemptId, AttemptReport, Outcome
from raygrid.node.definitions import lost_message
from raygrid.settings.pricer import Pricer

MOST_WAITING = 4_096
REMEMBERED = 10_000


class AcceptedAttempts:
    """The accepted attempts of one node.

    Attributes:
        by_job: by job, the attempt that waits or runs, then those that share its end.
        waiting: the attempts that wait for a slot, in order.
    """

    def __init__(self, node_id: str) -> None:
        self._node_id = node_id
        self.by_job: dict[str, list[AttemptId]] = {}
        self.waiting: OrderedDict[AttemptId, AttemptOrder] = OrderedDict()
        self._still_wanted: dict[str, list[AttemptId]] = {}  # by job: the attempts left after one was stopped
        self._answers: OrderedDict[str, AttemptReport] = OrderedDict()  # by job: reports of attempts that have ended

    def accept(self, order: AttemptOrder, lost: Collection[str] = ()) -> AttemptReport | None:
        """Accept an attempt; return its report if it is refused, or if its job has ended here already.

        `lost` are digests of definitions that neither the job store nor the node has.
        """
        attempt = order.attempt
        known = self.by_job.get(attempt.job_id)
        if known is not None:
            # The job runs or waits here, under this attempt or one that was given up: each attempt gets its end.
            if attempt not in known:
                known.append(attempt)
                if (wanted := self._still_wanted.get(attempt.job_id)) is not None:
                    wanted.append(attempt)
            return None
        if (answer := self._answers.get(attempt.job_id)) is not None:
            return replace(answer, attempt=attempt)
        if order.spec.definition in lost:
            return _definition_lost(order)
        if len(self.waiting) >= MOST_WAITING:
            message = f"node {self._node_id} refuses the attempt: {MOST_WAITING} attempts are waiting"
            return AttemptReport(attempt, Outcome.INFRASTRUCTURE, message=message)
        self.by_job[attempt.job_id] = [attempt]
        self.waiting[attempt] = order
        return None

    def next(self) -> AttemptOrder:
        """Take the attempt that has waited longest; there must be one."""
        return self.waiting.popitem(last=False)[1]

    def stop(self, attempts: Sequence[AttemptId]) -> tuple[list[AttemptId], list[AttemptId]]:
        """Give attempts up; return those that had not begun and were removed, and those that run and must be killed."""
        gone: list[AttemptId] = []
        running: list[AttemptId] = []
        for attempt in attempts:
            known = self.by_job.get(attempt.job_id, [])
            wanted = self._still_wanted.get(attempt.job_id, known)
            if attempt not in wanted:
                continue
            if len(wanted) > 1:  # another attempt of the job shares the run and still needs its end
                self._still_wanted[attempt.job_id] = [each for each in wanted if each != attempt]
            elif self.waiting.pop(known[0], None) is not None:
                gone.append(known[0])
            else:
                running.append(known[0])
        return gone, running

    def not_begun(self, attempts: Sequence[AttemptId]) -> list[AttemptId]:
        """Those of these attempts whose job waits for a slot."""
        return [each for each in attempts if (known := self.by_job.get(each.job_id)) and known[0] in self.waiting]

    def end(self, report: AttemptReport, pricers: Mapping[str, Pricer]) -> list[AttemptReport]:
        """Remove an attempt that has ended; return the reports of all attempts that share its end."""
        if _can_be_given_again(report, pricers.values()):
            self._answers[report.attempt.job_id] = report
            if len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        same_end = self.by_job.pop(report.attempt.job_id, [report.attempt])
        self._still_wanted.pop(report.attempt.job_id, None)
        return [report if attempt == report.attempt else replace(report, attempt=attempt) for attempt in same_end]

    def end_waiting(self, lost: Collection[str]) -> list[AttemptReport]:
        """End the attempts that wait for a slot and need one of these lost definitions; return their reports."""
        reports: list[AttemptReport] = []
        for order in [each for each in self.waiting.values() if each.spec.definition in lost]:
            del self.waiting[order.attempt]
            reports += self.end(_definition_lost(order), {})
        return reports

    def in_order(self) -> tuple[tuple[AttemptId, ...], int]:
        """All attempts, running ones first; and the number of waiting ones."""
        started = [attempts for attempts in self.by_job.values() if attempts[0] not in self.waiting]
        waiting = [attempts for attempts in self.by_job.values() if attempts[0] in self.waiting]
        return tuple(attempt for attempts in (*started, *waiting) for attempt in attempts), sum(map(len, waiting))


def _definition_lost(order: AttemptOrder) -> AttemptReport:
    return AttemptReport(order.attempt, Outcome.DEFINITION_LOST, message=lost_message(order.spec))


def _can_be_given_again(report: AttemptReport, pricers: Collection[Pricer]) -> bool:
    """Whether a further attempt of the job gets this report; a report that leads to a retry is not given again."""
    if report.outcome in INFRASTRUCTURE_OUTCOMES or report.outcome is Outcome.CANCELLED:
        return False
    return report.exit_code in (None, 0) or not any(report.exit_code in each.retry_exit_codes for each in pricers)
