"""The order of groups that is kept from job to job equals the one of sorting them anew."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from raygrid.core.routing.choice import RoutingPolicy, rank
from raygrid.core.routing.ranking import Ranking
from raygrid.models import GroupCapacity

NAMES = "abcde"
LOADS = st.builds(GroupCapacity, st.sampled_from(NAMES), st.integers(0, 4), st.integers(0, 6), st.integers(0, 6))


def other_than(group_id: str) -> Callable[[GroupCapacity], bool]:
    return lambda group: group.group_id != group_id


@given(st.lists(LOADS | st.sampled_from(NAMES), min_size=1, max_size=30), st.none() | st.sampled_from(NAMES))
def test_the_first_group_is_the_one_that_ranks_first(changes: list[GroupCapacity | str], home: str | None) -> None:
    """Whatever loads change and whichever groups go, `first` is the head of `rank` over those that may be chosen."""
    ranking, groups = Ranking(home), dict[str, GroupCapacity]()
    for change in changes:
        if isinstance(change, str):
            ranking.drop(change)
            groups.pop(change, None)
        else:
            ranking.put(change)
            groups[change.group_id] = change
        for barred in ("", *NAMES):
            may = [group for group in groups.values() if group.group_id != barred]
            wanted = rank(RoutingPolicy(), may, home=home)[0] if may else None
            assert ranking.first(other_than(barred)) == wanted
