"""What the attempts of a job amount to, as one value: leaders keep it, the job store stores it in five columns."""

from __future__ import annotations

from typing import NamedTuple


class AttemptCounts(NamedTuple):
    """What the attempts of a job so far amount to.

    Attributes:
        started: attempts started so far, which is the highest number that one was given.
        failures: those of them that count towards the job's limit.
        losses: those of the failures whose node was lost with them.
        recalled: attempts that ended for no reason of the job's or its node's.
        unstarted: attempts that were handed to a node and never began.
    """

    started: int = 0
    failures: int = 0
    losses: int = 0
    recalled: int = 0
    unstarted: int = 0

    def plus(
        self, *, started: int = 0, failures: int = 0, losses: int = 0, recalled: int = 0, unstarted: int = 0
    ) -> AttemptCounts:
        """These counts and some more."""
        return AttemptCounts(
            self.started + started,
            self.failures + failures,
            self.losses + losses,
            self.recalled + recalled,
            self.unstarted + unstarted,
        )

    def known_up_to(self, number: int) -> AttemptCounts:
        """These counts, where an attempt of that number is known to have been started."""
        return self if number <= self.started else self._replace(started=number)

    @property
    def began(self) -> int:
        """The attempts that began, which are those that clients are shown."""
        return self.started - self.unstarted

    @property
    def of_own_doing(self) -> int:
        """The attempts that were not recalled."""
        return self.started - self.recalled


NO_ATTEMPTS = AttemptCounts()
