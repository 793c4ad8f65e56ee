"""Routing: choosing a group for a job by `least_loaded`, `topology` or `hash`.

Each policy ranks the groups, best first; a parent takes the first one that can take the job. `spreading` does the same
for many jobs at once. Callers leave out groups without a leader or with a full queue.

**Load.** Groups with the most free slots come first (not counting slots that queued jobs will take), then the shortest
queue per slot; among equals the group of the parent's own rack, then the name.

**Distance** (`topology`, and `auto` for a job that names a site). A job runs at the nearest site that *has room*, by
load within the site. A group has room while it has a free slot or a short queue: one job per slot, or as many as the
group finishes within `patience_s` at its recent mean duration, whichever is more (at most `MOST_PER_SLOT`). If no group
has room, the load decides, and the distance only among equals. A distance counts in both directions unless both are
configured. For a job that names no site, distances count from the parent's site, and only free slots count as room, so
that the job does not wait for a site that it did not ask for. At equal distance, the parent's own rack comes first
while it has a free slot, so that payloads need not cross racks.

**Hash.** Jobs with the same affinity go to the same group. If a job also names a site, `auto` restricts it to the
nearest groups that have room. `hash` ignores sites, and `least_loaded` ignores affinities and sites.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raygrid.models import GroupCapacity

FAR = float("inf")
MOST_PER_SLOT = 16  # limit of waiting jobs per slot, because an estimate from recent durations may be wrong by hours

Key = tuple[float | str, ...]


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """The routing settings.

    Attributes:
        policy: `auto` (hash for a job with an affinity, topology for a job with a site, else least loaded),
            `least_loaded`, `topology` or `hash`.
        site_distance: distance from a client's site to a group's site; 0 for the same site, infinite if not given.
        hash_load_bound: `hash` skips a group whose load exceeds the average by more than this factor.
        patience_s: expected wait for a slot at the site that a job names before a farther site is chosen; with 0 the
            job never waits for the site.
    """

    policy: str = "auto"
    site_distance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    hash_load_bound: float = 1.25
    patience_s: float = 1.0

    def goes_by_hash(self, affinity: str | None) -> bool:
        """Whether a job with this affinity is routed by hash."""
        return affinity is not None and self.policy in ("hash", "auto")

    def goes_by_distance(self, site: str | None) -> bool:
        """Whether a job with this site (or none) is routed by distance."""
        return self.policy == "topology" or (self.policy == "auto" and site is not None)

    def distance(self, site: str | None, group: GroupCapacity) -> float:
        """The distance of a group from a site; 0 if no site is given."""
        if site is None or group.site == site:
            return 0.0
        if group.site is None:
            return FAR
        there = self.site_distance.get(site, {}).get(group.site)
        back = self.site_distance.get(group.site, {}).get(site)
        return there if there is not None else back if back is not None else FAR

    def queue_limit(self, group: GroupCapacity) -> int:
        """How many jobs may wait at a group that counts as having room."""
        if self.patience_s <= 0:
            return 0
        per_slot = self.patience_s / group.mean_s if group.mean_s else 1.0
        return int(group.slots * min(MOST_PER_SLOT, max(1.0, per_slot)))


def demand(group: GroupCapacity) -> int:
    """Jobs that hold or wait for one of the group's slots."""
    return group.busy + group.queued


def backlog(group: GroupCapacity) -> int:
    """Jobs for which the group has no slot."""
    return max(0, demand(group) - group.slots)


def by_load(group: GroupCapacity, home: str | None = None) -> Key:
    """Sort key of `least_loaded`; smaller is better."""
    free = group.slots - demand(group)
    waiting = backlog(group) / max(1, group.slots)
    return (-free if free > 0 else 0, waiting, group.group_id != home, group.group_id)


@dataclass(frozen=True, slots=True)
class Viewpoint:
    """The origin of distances for a job: the site that it names, else the parent's.

    Attributes:
        site: distances count from this site; None makes all distances 0.
        home: the group of the parent's own rack.
        patient: whether a short queue counts as room.
    """

    site: str | None
    home: str | None
    patient: bool

    @classmethod
    def of(cls, groups: Sequence[GroupCapacity], site: str | None, home: str | None) -> Viewpoint:
        """Make the viewpoint of a job with `site` (or none), for a parent in `home` (or in no rack)."""
        if site is not None:
            return cls(site, home, patient=True)
        return cls(next((group.site for group in groups if group.group_id == home), None), home, patient=False)

    def room(self, policy: RoutingPolicy, group: GroupCapacity) -> int:
        """The number of further jobs that a group has room for."""
        limit = policy.queue_limit(group) if self.patient else 0
        return max(0, group.slots + limit - demand(group))

    def key(self, policy: RoutingPolicy, group: GroupCapacity) -> Key:
        """Sort key of `topology`; smaller is better."""
        distance = policy.distance(self.site, group)
        *load, away, name = by_load(group, self.home)
        if not self.room(policy, group):
            return (True, 0.0, False, *load, distance, away, name)
        at_home = group.group_id == self.home and demand(group) < group.slots
        return (False, distance, not at_home, *load, distance, away, name)

    def nearest(self, policy: RoutingPolicy, groups: Sequence[GroupCapacity]) -> list[GroupCapacity]:
        """The nearest groups that have room; all groups if none has."""
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
    """Order the groups, best first, for one job; groups without any slot come last.

    Args:
        policy: the routing settings.
        groups: the reported load, plus the jobs that were sent since.
        affinity: the job's key, if any.
        site: the site that the job names, if any.
        home: the group of the parent's rack, if any.
    """
    view = Viewpoint.of(groups, site, home)
    able = _ordered(policy, [group for group in groups if group.slots > 0], affinity, site, view)
    # A group that runs nothing has nothing cached for an affinity.
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
    """How many jobs a group may have when `count` more come; above that, the hash skips it."""
    total = sum(demand(each) for each in groups) + count
    slots = sum(each.slots for each in groups) or 1
    return int(max(bound * total * group.slots / slots, group.slots))


def by_hash(groups: Sequence[GroupCapacity], affinity: str, bound: float, count: int = 1) -> list[GroupCapacity]:
    """Order groups by rendezvous hashing with a load bound.

    Every group's score is hash(key, group), and the highest score comes first, so that the loss of a group moves only
    its own keys (Thaler and Ravishankar, 1998). A group above `bound` times the average load comes after the others
    (Mirrokni, Thorup and Zadimoghaddam, 2016), so that a popular key does not overload one group.
    """

    def score(group: GroupCapacity) -> tuple[bool, bytes]:
        over = demand(group) + 1 > hash_limit(groups, group, count, bound)
        return (not over, hashlib.sha256(f"{affinity}\0{group.group_id}".encode()).digest())

    return sorted(groups, key=score, reverse=True)
