"""Limits of rates."""

from __future__ import annotations

from raygrid.core import rates
from raygrid.core.rates import RateLimit


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    """A full bucket is a minute's worth; the answer tells how long to wait."""
    limit = RateLimit()
    assert [limit.take("a", 6, 0.0) for _ in range(6)] == [0.0] * 6
    assert limit.take("a", 6, 0.0) == 10.0
    assert limit.take("a", 6, 4.0) == 6.0
    assert limit.take("a", 6, 10.0) == 0.0
    assert limit.take("a", 6, 10.0) > 0


def test_subjects_do_not_take_from_one_another() -> None:
    """Each has its own bucket, which never holds more than a minute's worth."""
    limit = RateLimit()
    assert limit.take("a", 1, 0.0) == 0.0
    assert limit.take("b", 1, 0.0) == 0.0
    assert limit.take("a", 1, 1_000.0) == 0.0
    assert limit.take("a", 1, 1_000.0) > 0


def test_memory_is_bounded() -> None:
    """Beyond the bound, the subjects that were used least recently begin anew."""
    limit = RateLimit()
    for number in range(rates.MOST_SUBJECTS + 10):
        limit.take(str(number), 1, 0.0)
    assert len(limit._buckets) == rates.MOST_SUBJECTS
    assert limit.take("0", 1, 0.0) == 0.0
    assert limit.take(str(rates.MOST_SUBJECTS + 9), 1, 0.0) > 0
