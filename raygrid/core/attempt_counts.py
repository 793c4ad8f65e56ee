"""The counts of a job's attempts as one value: leaders keep it in memory, the job store in five columns."""

from __future__ import annotations

from typing import NamedTuple


class AttemptCounts(NamedTuple):
    """Counts of a job's attempts so far.

    Attributes:
        started: attempts started; also the highest attempt number given out.
        failures: attempts that count towards the job's limit.
        losses: failures in which the node was lost.
        recalled: attempts that ended for a reason outside the job and its node.
        unstarted: attempts that were handed to a node and never began.
    """

    started: int = 0
    failures: int = 0
    losses: int = 0
    recalled: int = 0
    unstarted: int = 0

    def known_up_to(self, number: int) -> AttemptCounts:
        """Raise `started` to an attempt number that is known to have been given out."""
        return self if number <= self.started else self._replace(started=number)

    @property
    def began(self) -> int:
        """Attempts that began; clients see this number."""
        return self.started - self.unstarted

    @property
    def not_recalled(self) -> int:
        """Attempts that were not recalled."""
        return self.started - self.recalled


NO_ATTEMPTS = AttemptCounts()
