"""What a group remembers of an unfinished job."""

from __future__ import annotations

from dataclasses import dataclass, field

from raygrid.models import AttemptId, JobSpec


@dataclass(slots=True)
class Entry:
    """An unfinished job.

    `charged` counts the attempts that count towards its limit. `unconfirmed` is a running one of a leader before this
    one, of which no node has spoken yet. `recorded` says that the store has been told that the current attempt runs.
    """

    spec: JobSpec
    attempts: int = 0
    charged: int = 0
    lost: int = 0
    node_id: str | None = None
    failed_on: set[str] = field(default_factory=set)
    cancelled: bool = False
    stop_sent_at: float = 0.0
    unconfirmed: bool = False
    recorded: bool = False
    recalled: int = 0  # attempts that ended for no reason of the job's or its node's: taken back, moved
    moved: bool = False  # the current attempt is being stopped, to be run elsewhere

    @property
    def current(self) -> AttemptId:
        """Its latest attempt."""
        return AttemptId(self.spec.job_id, self.attempts)
