"""What this parent knows of each group: its candidates, leader and load. Polling writes it, routing reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from raygrid.core.result_sources import NodePlace
from raygrid.models import GroupCapacity, QueuedJob
from raygrid.transport.batching import Coalescer
from raygrid.transport.ports import LeaderCalls

SILENT_S = 4.0
REFUSAL_S = 2.0  # a group that refused a job gets no new ones for this long


def now() -> float:
    """The time of the event loop."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class KnownGroup:
    """A group: its candidates, the latest answer of its leader, and what this parent has sent since.

    Attributes:
        notices: announces new jobs to the leader.
        followers: for each candidate the task that polls it.
        leader: the candidate that gave the latest answer as leader, in `term`, under the name `holder`.
        changed: set by each answer of a leader.
        capacity: the load that the leader reported, at `answered_at`.
        promised: jobs that were routed to the group but not announced to its leader yet.
        announced: jobs that were announced since the leader's latest answer.
    """

    notices: Coalescer[QueuedJob, None]
    followers: dict[LeaderCalls, asyncio.Task[None]] = field(default_factory=dict)
    leader: LeaderCalls | None = None
    term: int = 0
    holder: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    capacity: GroupCapacity | None = None
    answered_at: float = 0.0
    promised: int = 0
    announced: int = 0
    _places: dict[str, NodePlace] = field(default_factory=dict)
    _places_of: GroupCapacity | None = None

    def load(self, reported: GroupCapacity) -> GroupCapacity:
        """The load that the leader reported, with what was sent since."""
        queued = reported.queued + self.promised + self.announced
        return replace(reported, queued=queued, leader=self.holder, term=self.term)

    def others_than(self, leader: LeaderCalls | None) -> list[LeaderCalls]:
        """The candidates except one."""
        return [candidate for candidate in self.followers if candidate is not leader]

    def place_of(self, node_id: str) -> NodePlace | None:
        """The place of a node of the group. Builds an index at the first call after each answer of the leader."""
        if self.capacity is not None and self._places_of is not self.capacity:
            self._places = {node.node_id: NodePlace(node.group_id, node.address) for node in self.capacity.nodes}
            self._places_of = self.capacity
        return self._places.get(node_id)


class KnownGroups:
    """All groups that this parent knows.

    Attributes:
        by_id: the groups.
        lost: groups without a leader, as the sweeper found.
        changed: groups whose load has changed since routing last ranked them.
    """

    def __init__(self) -> None:
        self.by_id: dict[str, KnownGroup] = {}
        self.lost: frozenset[str] = frozenset()
        self.changed: set[str] = set()
        self._refused_until: dict[str, float] = {}

    def __iter__(self) -> Iterator[KnownGroup]:
        return iter(self.by_id.values())

    def get(self, group_id: str) -> KnownGroup | None:
        """A group, if it is known."""
        return self.by_id.get(group_id)

    def capacities(self, *, silent_too: bool = False) -> list[GroupCapacity]:
        """The load of every group whose leader has answered lately, with what was sent since.

        With `silent_too`, also the last load of groups whose leader has not answered for `SILENT_S`.
        """
        since = now() - SILENT_S
        return [
            known.load(known.capacity)
            for known in self
            if known.capacity is not None and (silent_too or known.answered_at > since)
        ]

    def note_refusal(self, group_id: str) -> None:
        """Send no new jobs to a group for `REFUSAL_S`, because it refused some."""
        self._refused_until[group_id] = now() + REFUSAL_S

    def is_avoided(self, group_id: str) -> bool:
        """Whether other groups are preferred, because this one is lost or has just refused jobs."""
        return group_id in self.lost or now() < self._refused_until.get(group_id, 0.0)
