"""The record that a group keeps of an unfinished job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import add
from typing import NamedTuple

from raygrid.core.attempt_counts import NO_ATTEMPTS, AttemptCounts
from raygrid.models import AttemptId, AttemptReport, JobSpec, JobState, JobUpdate, QueuedJob


class SecondAttempt(NamedTuple):
    """The second attempt of a straggler: a job that takes far longer than others of its pricer."""

    attempt: AttemptId
    node_id: str
    since: float


@dataclass(slots=True, eq=False)
class Entry:
    """An unfinished job.

    `number` is that of the current attempt. `unconfirmed` means: an earlier leader recorded the attempt as running, and
    no node has confirmed it yet. `recorded` means: the store holds the current attempt as running since `since`.
    """

    spec: JobSpec
    counts: AttemptCounts = NO_ATTEMPTS
    number: int = 0
    node_id: str | None = None
    second: SecondAttempt | None = None
    failed_on: frozenset[str] = frozenset()  # nodes; almost always empty, so the empty set is shared
    cancelled: bool = False
    stop_sent_at: float = 0.0
    unconfirmed: bool = False
    recorded: bool = False
    since: float = 0.0
    moved: bool = False  # the current attempt is being stopped, to be run elsewhere
    suspect: bool = False  # a node was lost while it held the job
    had_second: bool = False  # the job has had its second attempt
    given_up: tuple[str, int] | None = None  # node and number of an unconfirmed attempt whose loss was not charged
    alone: bool = False  # the job was killed because its node ran out of memory; from now on it runs without others

    @classmethod
    def of(cls, job: QueuedJob) -> Entry:
        """Make the record of a job from the store's."""
        return cls(
            job.spec,
            counts=job.counts,
            number=job.counts.started,
            cancelled=job.cancel_requested,
            suspect=job.counts.losses > 0,
        )

    def count(
        self, *, started: int = 0, failures: int = 0, losses: int = 0, recalled: int = 0, unstarted: int = 0
    ) -> None:
        """Add to the counts."""
        more = (started, failures, losses, recalled, unstarted)
        self.counts = AttemptCounts(*map(add, self.counts, more))

    @property
    def runs(self) -> str:
        """The definition that the job runs; the pricer's name for a job stored by an older release."""
        return self.spec.definition or self.spec.pricer

    @property
    def current(self) -> AttemptId:
        """The current attempt; while the job waits, the latest one."""
        return AttemptId(self.spec.job_id, self.number)

    def places(self) -> Iterator[tuple[str, AttemptId]]:
        """The attempts that nodes hold, each with its node."""
        if self.node_id is not None:
            yield self.node_id, self.current
        if self.second is not None:
            yield self.second.node_id, self.second.attempt

    def update(
        self,
        state: JobState,
        at: datetime,
        node_id: str | None = None,
        *,
        reason: str | None = None,
        report: AttemptReport | None = None,
        message: str | None = None,
    ) -> JobUpdate:
        """Make the update for the store."""
        return JobUpdate(self.spec.job_id, state, self.counts, node_id, at, reason, report, message)
