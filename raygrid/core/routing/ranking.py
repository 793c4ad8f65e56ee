"""An index of the groups by load, kept between jobs, so that a choice costs the same with many groups.

A parent updates the groups that have changed. For a job that is routed by load alone, the first group is the one that
`choice.rank` would put first.
"""

from __future__ import annotations

from collections.abc import Callable

from raygrid.core.routing.choice import by_load
from raygrid.core.sorted_names import SortedNames
from raygrid.models import GroupCapacity


class Ranking:
    """Groups by load; those without any slot come last.

    Args:
        home: the group of the parent's rack, if any.
    """

    def __init__(self, home: str | None = None) -> None:
        self._home = home
        self._order = SortedNames()
        self._groups: dict[str, GroupCapacity] = {}

    def put(self, group: GroupCapacity) -> None:
        """Set the load of a group."""
        self._groups[group.group_id] = group
        self._order.put(group.group_id, (group.slots <= 0, *by_load(group, self._home)))

    def drop(self, group_id: str) -> None:
        """Remove a group."""
        self._groups.pop(group_id, None)
        self._order.drop(group_id)

    def first(self, may: Callable[[GroupCapacity], bool]) -> GroupCapacity | None:
        """The best group for which `may` is true, if any."""
        return next((group for group_id in self._order if may(group := self._groups[group_id])), None)
