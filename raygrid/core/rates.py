"""Limits of rates: how often something may happen in a minute. Pure: the time is an argument."""

from __future__ import annotations

from collections import OrderedDict

MOST_SUBJECTS = 10_000


class RateLimit:
    """A bucket of tokens for each subject. A full bucket allows a burst; it refills within a minute.

    At most `MOST_SUBJECTS` are remembered; beyond, those that were used least recently begin anew.
    """

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # subject: tokens, and when they were so

    def take(self, subject: str, per_minute: int, now: float) -> float:
        """Take one token.

        Args:
            subject: who wants it.
            per_minute: tokens of a full bucket.
            now: a monotonic time, seconds.

        Returns:
            0 if there was one, otherwise the seconds until there is one.
        """
        tokens, at = self._buckets.pop(subject, (float(per_minute), now))
        tokens = min(float(per_minute), tokens + (now - at) * per_minute / 60)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) * 60 / per_minute
        self._buckets[subject] = (tokens if wait_s else tokens - 1, now)
        if len(self._buckets) > MOST_SUBJECTS:
            self._buckets.popitem(last=False)
        return wait_s
