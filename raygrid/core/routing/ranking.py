"""The groups in the order of their load, kept from job to job, so that choosing one costs the same among many groups.

A parent says which groups have changed. For a job that goes by load alone, the first group is the one that
`routing.rank` would put first.
"""

from __future__ import annotations

from collections.abc import Callable

from raygrid.core.ordered import Ordered
from raygrid.core.routing.choice import by_load
from raygrid.models import GroupCapacity


class Ranking:
    """Groups by load, those without any slot last.

    Args:
        home: the group of the rack in which the asking parent stands, if it stands in one.
    """

    def __init__(self, home: str | None = None) -> None:
        self._home = home
        self._order = Ordered()
        self._groups: dict[str, GroupCapacity] = {}

    def put(self, group: GroupCapacity) -> None:
        """A group has this load now."""
        self._groups[group.group_id] = group
        self._order.put(group.group_id, (group.slots <= 0, *by_load(group, self._home)))

    def drop(self, group_id: str) -> None:
        """A group is gone."""
        self._groups.pop(group_id, None)
        self._order.drop(group_id)

    def first(self, may: Callable[[GroupCapacity], bool]) -> GroupCapacity | None:
        """The best of the groups that may be chosen, if there is any."""
        return next((group for group_id in self._order if may(group := self._groups[group_id])), None)
