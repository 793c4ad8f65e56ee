"""Attempts that an earlier process of a node's agent left unfinished, as the node reports them after its restart.

They were running when all processes of the machine ended at once: by a power cut, or by a pricer that killed every
process it could reach. The store may not have such an attempt, because an attempt is written as running a moment after
it is handed over. Without the node's report, a job that takes the whole grid down would run again after every start.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from raygrid.core.group import suspects
from raygrid.core.group.attempts import GroupAttempts
from raygrid.core.group.collector import Collector
from raygrid.core.group.entry import Entry
from raygrid.core.group.placement import NodeRecord
from raygrid.models import AttemptReport, JobState


class GroupLeftovers(GroupAttempts):
    """Charges the loss of attempts that ended together with the grid."""

    def _left_over(self, node: NodeRecord, reports: Iterable[AttemptReport], out: Collector) -> None:
        """Charge attempts that ended with earlier processes of a node's agent, by the rule for lost nodes.

        Attempts of one process have the same `ended_at`, because they were found together.
        """
        for _, together in groupby(reports, key=lambda report: report.ended_at):
            self._left_over_of_one_process(node, together, out)

    def _left_over_of_one_process(self, node: NodeRecord, reports: Iterable[AttemptReport], out: Collector) -> None:
        found: list[tuple[Entry, AttemptReport]] = []
        for report in reports:
            entry = self._jobs.get(report.attempt.job_id)
            if entry is not None and self._is_news(entry, node.node_id, report):
                found.append((entry, report))
        charged = suspects.losses_to_charge([entry for entry, _ in found], self.policy.retry.max_attempts)
        for entry, _ in found:
            entry.suspect = True
        for (entry, report), charge in zip(found, charged, strict=True):
            self._lost_with_grid(entry, node, report, out, charge=charge)

    @staticmethod
    def _is_news(entry: Entry, node_id: str, report: AttemptReport) -> bool:
        """Whether the loss of an attempt has not been counted yet.

        A report comes again if a leader ended before it could acknowledge it; by then the store has the attempt's
        number, and no node holds the attempt. If this leader has started an attempt with the same number on another
        node, that is a different attempt: the store did not know the reported one.
        """
        number = report.attempt.number
        if number > entry.counts.started or (node_id, report.attempt) in entry.places():
            return True
        if entry.given_up == (node_id, number):  # the node restarted late; its attempt has not been charged yet
            return True
        restarted = entry.node_id not in (None, node_id) and not entry.unconfirmed
        return restarted and number == entry.number == entry.counts.started and entry.second is None

    def _lost_with_grid(
        self, entry: Entry, node: NodeRecord, report: AttemptReport, out: Collector, *, charge: bool
    ) -> None:
        held = (node.node_id, report.attempt) in entry.places()
        node.drop(report.attempt)
        entry.counts = entry.counts.known_up_to(report.attempt.number)
        entry.given_up = None
        if held and entry.second is not None:
            self._continue_with_other(entry, report.attempt, out, began=True)
        elif held or entry.node_id is None:
            self._backlog.remove(entry.spec.job_id)
            if entry.node_id is None:
                entry.number = report.attempt.number
            entry.unconfirmed = entry.moved = False
            self._try_again(entry, report, node.node_id, out, charge=charge)
        elif charge and entry.counts.failures < self.policy.retry.max_attempts - 1:
            # Another attempt of the job runs by now: it continues, and the loss is counted, unless it is the last
            # allowed one. That one is not counted here, because the running attempt is the last one of the job.
            entry.count(failures=1, losses=1)
            if entry.recorded:
                out.update(entry.update(JobState.RUNNING, out.instant(entry.since), entry.node_id))
