"""Which candidate leads, under which term."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from raygrid.core.lease import Lease, next_lease

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=3)


def test_the_first_lease_of_a_group_has_term_one() -> None:
    """A group that had no leader yet starts with term 1."""
    assert next_lease(None, "rack-a", "me", NOW, LATER) == Lease("rack-a", "me", 1, LATER)


def test_a_renewal_in_time_keeps_the_term() -> None:
    """The holder of a live lease only moves its end."""
    held = Lease("rack-a", "me", 7, NOW + timedelta(microseconds=1))
    assert next_lease(held, "rack-a", "me", NOW, LATER) == Lease("rack-a", "me", 7, LATER)


def test_a_live_lease_is_refused_to_others() -> None:
    """No other candidate gets a lease before its very end."""
    assert next_lease(Lease("rack-a", "me", 7, LATER), "rack-a", "you", NOW, LATER) is None


def test_a_lease_that_ran_out_goes_to_the_next_that_asks_with_a_higher_term() -> None:
    """At the instant of its end a lease is over, for its holder too."""
    over = Lease("rack-a", "me", 7, NOW)
    assert next_lease(over, "rack-a", "you", NOW, LATER) == Lease("rack-a", "you", 8, LATER)
    assert next_lease(over, "rack-a", "me", NOW, LATER) == Lease("rack-a", "me", 8, LATER)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 5))))
def test_one_term_has_one_holder(asks: list[tuple[str, int]]) -> None:
    """However candidates come and go, terms never fall and no term is held by two."""
    now, current, holders, last = NOW, None, dict[int, str](), 0
    for holder, passed in asks:
        now += timedelta(seconds=passed)
        lease = next_lease(current, "rack-a", holder, now, now + timedelta(seconds=3))
        if lease is not None:
            assert lease.term >= last
            assert holders.setdefault(lease.term, holder) == holder
            current, last = lease, lease.term
