"""What a group remembers of an unfinished job."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from raygrid.core.attempt_counts import NO_ATTEMPTS, AttemptCounts
from raygrid.models import AttemptId, AttemptReport, JobSpec, JobState, JobUpdate, QueuedJob


class Twin(NamedTuple):
    """The second attempt of a job that takes far longer than others of its kind."""

    attempt: AttemptId
    node_id: str
    since: float


@dataclass(slots=True, eq=False)
class Entry:
    """An unfinished job.

    `counts` are its attempts so far, `number` is that of the current one. `unconfirmed` is a running one of a leader
    before this one, which no node has confirmed yet. `recorded` is set once the store holds the current attempt as
    running, `since` from when on.
    """

    spec: JobSpec
    counts: AttemptCounts = NO_ATTEMPTS
    number: int = 0
    node_id: str | None = None
    twin: Twin | None = None
    failed_on: frozenset[str] = frozenset()  # nodes; none for nearly all jobs, so no set of their own
    cancelled: bool = False
    stop_sent_at: float = 0.0
    unconfirmed: bool = False
    recorded: bool = False
    since: float = 0.0
    moved: bool = False  # the current attempt is being stopped, to be run elsewhere
    suspect: bool = False  # it was on a node that was lost
    doubled: bool = False  # it has had its second attempt
    given_up: tuple[str, int] | None = None  # node and number of an unconfirmed attempt whose loss was not charged
    alone: bool = False  # it was killed when its node ran out of memory: it runs with nothing beside it from now on

    @classmethod
    def of(cls, job: QueuedJob) -> Entry:
        """What the store knows of a job."""
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
        """Count further attempts."""
        self.counts = self.counts.plus(
            started=started, failures=failures, losses=losses, recalled=recalled, unstarted=unstarted
        )

    @property
    def runs(self) -> str:
        """What it runs: its definition, or its pricer as it is configured where an older release took the job."""
        return self.spec.definition or self.spec.pricer

    @property
    def current(self) -> AttemptId:
        """Its attempt that counts; the latest one while it waits."""
        return AttemptId(self.spec.job_id, self.number)

    def places(self) -> Iterator[tuple[str, AttemptId]]:
        """Its attempts that nodes have, each with its node."""
        if self.node_id is not None:
            yield self.node_id, self.current
        if self.twin is not None:
            yield self.twin.node_id, self.twin.attempt

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
        """What the store is to be told."""
        return JobUpdate(self.spec.job_id, state, self.counts, node_id, at, reason, report, message)
