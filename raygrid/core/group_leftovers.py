"""Attempts that an earlier life of a node's agent left unfinished, as that node reports them when it comes up again.

They were running when everything on the machine ended at once: a power cut, or a pricer that killed all processes it
could reach. The store may not know of such an attempt, because an attempt is written as running a moment after it is
handed over; without the node's report a job that takes the whole grid down would run again with every start.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from raygrid.core import suspects
from raygrid.core.collector import Collector
from raygrid.core.entry import Entry
from raygrid.core.group_attempts import GroupAttempts
from raygrid.core.placement import NodeRecord
from raygrid.models import AttemptReport, JobState


class GroupLeftovers(GroupAttempts):
    """Charges the loss of attempts that ended together with the grid."""

    def _left_over(self, node: NodeRecord, reports: Iterable[AttemptReport], out: Collector) -> None:
        """Charge attempts that ended with earlier lives of a node's agent, by the rule for lost nodes.

        Those of one life were found together, so that they have the same end.
        """
        for _, together in groupby(reports, key=lambda report: report.ended_at):
            self._left_over_of_one_life(node, together, out)

    def _left_over_of_one_life(self, node: NodeRecord, reports: Iterable[AttemptReport], out: Collector) -> None:
        found: list[tuple[Entry, AttemptReport]] = []
        for report in reports:
            entry = self._jobs.get(report.attempt.job_id)
            if entry is not None and self._is_news(entry, node.node_id, report):
                found.append((entry, report))
        charged = suspects.charged([entry for entry, _ in found], self.policy.retry.max_attempts)
        for entry, _ in found:
            entry.suspect = True
        for (entry, report), charge in zip(found, charged, strict=True):
            self._lost_with_grid(entry, node, report, out, charge=charge)

    @staticmethod
    def _is_news(entry: Entry, node_id: str, report: AttemptReport) -> bool:
        """Whether the loss of an attempt has not been counted yet.

        The same report comes again where a leader ended before it could settle it; by then the attempt's number is in
        the store and the attempt itself is on no node. An attempt that this leader has started on another node under
        the same number is another one: the store did not know of the first.
        """
        number = report.attempt.number
        if number > entry.attempts or (node_id, report.attempt) in entry.places():
            return True
        if entry.given_up == (node_id, number):  # the node came up late, and its attempt was not charged so far
            return True
        restarted = entry.node_id not in (None, node_id) and not entry.unconfirmed
        return restarted and number == entry.number == entry.attempts and entry.twin is None

    def _lost_with_grid(
        self, entry: Entry, node: NodeRecord, report: AttemptReport, out: Collector, *, charge: bool
    ) -> None:
        held = (node.node_id, report.attempt) in entry.places()
        node.held.pop(report.attempt, None)
        node.uncertain.discard(report.attempt)
        entry.attempts = max(entry.attempts, report.attempt.number)
        entry.given_up = None
        if held and entry.twin is not None:
            self._one_less(entry, report.attempt, out, began=True)
        elif held or entry.node_id is None:
            self._backlog.remove(entry.spec.job_id)
            if entry.node_id is None:
                entry.number = report.attempt.number
            entry.unconfirmed = entry.moved = False
            self._try_again(entry, report, node.node_id, out, charge=charge)
        elif charge and entry.charged < self.policy.retry.max_attempts - 1:
            # It runs elsewhere by now: let it, and count the loss. The last one that is allowed is not counted before
            # the attempt that runs has ended, for that one is the job's last chance.
            entry.charged += 1
            entry.lost += 1
            if entry.recorded:
                out.update(entry.update(JobState.RUNNING, out.instant(entry.since), entry.node_id))
