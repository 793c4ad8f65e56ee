"""Choosing a group for a job: `least_loaded`, `topology` and `hash`.

Each policy ranks the groups, best first; a parent takes the first that can take the job. `spreading` does the same
for many jobs at once. Groups that no leader speaks for, or whose queue is full, are left out before.

**Load.** Most free slots first (those that no queued job is about to take); among groups without any, the shortest
queue per slot; between exact equals the group of the parent's own rack, then the name.

**Distance** (`topology`, and `auto` for a job that names a site). A job runs at the nearest site that *has room*, by
load inside that site. A group has room while it has a free slot or a short queue: one job per slot, or as many as it
works off within `patience_s` by what attempts took there lately, whichever is more (never above `MOST_PER_SLOT`).
When no group has room, the load decides and distance only between equals. Distances count both ways unless both are
given. A job that names no site is seen from where the parent stands, and only free slots count as room: nobody asked
it to wait. At one distance, the parent's own rack comes first while it has a free slot, so that payloads need not
cross racks.

**Hash.** Jobs of one affinity meet in one group. A job that names a site, too, keeps to the nearest groups that have
room (under `auto`; under `hash` a site means nothing, and under `least_loaded` neither does an affinity).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raygrid.models import GroupCapacity

FAR = float("inf")
# A guess from what jobs took lately may be wrong by hours: it lets no more than this many wait for each slot.
MOST_PER_SLOT = 16

Key = tuple[float | str, ...]


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """A configured way of choosing.

    Attributes:
        policy: `auto` (hash where the job brings an affinity, topology where it names a site, else least loaded),
            `least_loaded`, `topology` or `hash`.
        site_distance: distance from a client's site to a group's site; the same site is 0, an unknown one far.
        hash_load_bound: with `hash`, a group more than this many times as loaded as the average is passed over.
        patience_s: how long a job may be expected to wait for a slot at the site that it names before a farther one
            is taken; 0 lets it wait for nothing.
    """

    policy: str = "auto"
    site_distance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    hash_load_bound: float = 1.25
    patience_s: float = 1.0

    def goes_by_hash(self, affinity: str | None) -> bool:
        """Whether a job of that affinity is routed by it."""
        return affinity is not None and self.policy in ("hash", "auto")

    def goes_by_distance(self, site: str | None) -> bool:
        """Whether a job that names that site (or none) is routed by distance."""
        return self.policy == "topology" or (self.policy == "auto" and site is not None)

    def distance(self, site: str | None, group: GroupCapacity) -> float:
        """How far a group is from a site; everything is equally near to nowhere."""
        if site is None or group.site == site:
            return 0.0
        if group.site is None:
            return FAR
        there = self.site_distance.get(site, {}).get(group.site)
        back = self.site_distance.get(group.site, {}).get(site)
        return there if there is not None else back if back is not None else FAR

    def queue_limit(self, group: GroupCapacity) -> int:
        """Most jobs that may wait at a group that still counts as having room."""
        if self.patience_s <= 0:
            return 0
        per_slot = self.patience_s / group.mean_s if group.mean_s else 1.0
        return int(group.slots * min(MOST_PER_SLOT, max(1.0, per_slot)))


def demand(group: GroupCapacity) -> int:
    """Jobs that hold or want one of the group's slots."""
    return group.busy + group.queued


def backlog(group: GroupCapacity) -> int:
    """Those of them for which there is no slot."""
    return max(0, demand(group) - group.slots)


def by_load(group: GroupCapacity, home: str | None = None) -> Key:
    """Sort key of `least_loaded`: the smaller, the better."""
    free = group.slots - demand(group)
    waiting = backlog(group) / max(1, group.slots)
    return (-free if free > 0 else 0, waiting, group.group_id != home, group.group_id)


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """From where a job looks at the groups: the site it names, else where the parent stands.

    Attributes:
        site: distances count from here; None: nowhere in particular.
        home: the group of the parent's own rack.
        patient: whether a short queue counts as room.
    """

    site: str | None
    home: str | None
    patient: bool

    @classmethod
    def of(cls, groups: Sequence[GroupCapacity], site: str | None, home: str | None) -> Viewpoint:
        """The viewpoint of a job that names `site` (or none), at a parent in `home` (or in no rack)."""
        if site is not None:
            return cls(site, home, patient=True)
        return cls(next((group.site for group in groups if group.group_id == home), None), home, patient=False)

    def room(self, policy: RoutingPolicy, group: GroupCapacity) -> int:
        """How many more jobs a group has room for."""
        limit = policy.queue_limit(group) if self.patient else 0
        return max(0, group.slots + limit - demand(group))

    def key(self, policy: RoutingPolicy, group: GroupCapacity) -> Key:
        """Sort key of `topology`: the smaller, the better."""
        distance = policy.distance(self.site, group)
        *load, away, name = by_load(group, self.home)
        if not self.room(policy, group):
            return (True, 0.0, False, *load, distance, away, name)
        at_home = group.group_id == self.home and demand(group) < group.slots
        return (False, distance, not at_home, *load, distance, away, name)

    def nearest(self, policy: RoutingPolicy, groups: Sequence[GroupCapacity]) -> list[GroupCapacity]:
        """The nearest groups that have room; all groups where none has any."""
        roomy = [group for group in groups if self.room(policy, group)]
        least = min((policy.distance(self.site, group) for group in roomy), default=None)
        return [group for group in roomy if policy.distance(self.site, group) == least] or list(groups)


def rank(
    policy: RoutingPolicy,
    groups: Sequence[GroupCapacity],
    *,
    affinity: str | None = None,
    site: str | None = None,
    home: str | None = None,
) -> list[GroupCapacity]:
    """The groups in the order in which a job should be offered to them; those without any slot come last.

    Args:
        policy: how to choose.
        groups: their load, with what was sent to them since they told it.
        affinity: the job's key, if it has one.
        site: the site that the job names, if any.
        home: the group of the rack in which the asking parent stands, if it stands in one.
    """
    view = Viewpoint.of(groups, site, home)
    able = _ordered(policy, [group for group in groups if group.slots > 0], affinity, site, view)
    # Where nothing can run, an affinity finds nothing that others of its key have left.
    return able + _ordered(policy, [group for group in groups if group.slots <= 0], None, site, view)


def _ordered(
    policy: RoutingPolicy,
    groups: Sequence[GroupCapacity],
    affinity: str | None,
    site: str | None,
    view: Viewpoint,
) -> list[GroupCapacity]:
    if affinity is not None and policy.goes_by_hash(affinity):
        if not policy.goes_by_distance(site):
            return by_hash(groups, affinity, policy.hash_load_bound)
        near = by_hash(view.nearest(policy, groups), affinity, policy.hash_load_bound)
        rest = [group for group in groups if group not in near]
        return near + sorted(rest, key=lambda group: view.key(policy, group))
    if policy.goes_by_distance(site):
        return sorted(groups, key=lambda group: view.key(policy, group))
    return sorted(groups, key=lambda group: by_load(group, view.home))


def hash_limit(groups: Sequence[GroupCapacity], group: GroupCapacity, count: int, bound: float) -> int:
    """Most jobs that a group may have when `count` more come, before the hash passes it over."""
    total = sum(demand(each) for each in groups) + count
    slots = sum(each.slots for each in groups) or 1
    return int(max(bound * total * group.slots / slots, group.slots))


def by_hash(groups: Sequence[GroupCapacity], affinity: str, bound: float, count: int = 1) -> list[GroupCapacity]:
    """Rendezvous hashing with a load bound.

    Every group scores hash(key, group) and the highest wins, so that a lost group moves only its own keys
    (Thaler and Ravishankar, 1998). A group above `bound` times the average load is put behind the others
    (Mirrokni, Thorup and Zadimoghaddam, 2016), which keeps a popular key from drowning one group.
    """

    def score(group: GroupCapacity) -> tuple[bool, bytes]:
        over = demand(group) + 1 > hash_limit(groups, group, count, bound)
        return (not over, hashlib.sha256(f"{affinity}\0{group.group_id}".encode()).digest())

    return sorted(groups, key=score, reverse=True)
