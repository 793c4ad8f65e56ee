"""Choosing a group for a job: `least_loaded`, `topology` and `hash`.

Each policy ranks the groups, best first; a parent takes the first that can take the job and falls back to the next.
Groups that no leader speaks for, or whose queue is full, are left out before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raygrid.models import GroupCapacity

FAR = float("inf")


@dataclass(frozen=True, slots=True)
class RoutingPolicy:
    """A configured way of choosing.

    Attributes:
        policy: `auto` (hash where the job brings an affinity, topology where it names a site, else least loaded),
            `least_loaded`, `topology` or `hash`.
        site_distance: distance from a client's site to a group's site; the same site is 0, an unknown one far.
        hash_load_bound: with `hash`, a group more than this many times as loaded as the average is passed over.
    """

    policy: str = "auto"
    site_distance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    hash_load_bound: float = 1.25


def rank(
    policy: RoutingPolicy,
    groups: Sequence[GroupCapacity],
    *,
    affinity: str | None = None,
    site: str | None = None,
) -> list[GroupCapacity]:
    """The groups in the order in which a job should be offered to them; those without any slot come last."""
    able = _ordered(policy, [group for group in groups if group.slots > 0], affinity, site)
    return able + _ordered(policy, [group for group in groups if group.slots <= 0], affinity, site)


def _ordered(
    policy: RoutingPolicy, groups: Sequence[GroupCapacity], affinity: str | None, site: str | None
) -> list[GroupCapacity]:
    if policy.policy in ("hash", "auto") and affinity is not None:
        return _by_hash(groups, affinity, policy.hash_load_bound)
    if policy.policy == "topology" or (policy.policy == "auto" and site is not None):
        return sorted(groups, key=lambda group: (*_nearness(policy, site, group), *_load(group)))
    return sorted(groups, key=_load)


def _load(group: GroupCapacity) -> tuple[float, float, str]:
    """Most free slots first; among full groups the shortest queue per slot."""
    backlog = group.queued + max(0, group.busy - group.slots)
    return (
        -(group.free - group.queued) if group.free > group.queued else 0.0,
        backlog / max(1, group.slots),
        group.group_id,
    )


def _nearness(policy: RoutingPolicy, site: str | None, group: GroupCapacity) -> tuple[bool, float]:
    """Nearest first, but a group without any room stands behind the groups that have some."""
    full = group.free <= group.queued
    if site is None:
        return (full, 0.0)
    if group.site == site:
        return (full, 0.0)
    distance = policy.site_distance.get(site, {}).get(group.site or "", FAR)
    return (full, distance)


def _by_hash(groups: Sequence[GroupCapacity], key: str, bound: float) -> list[GroupCapacity]:
    """Rendezvous hashing with a load bound.

    Every group scores hash(key, group) and the highest wins, so that a lost group moves only its own keys
    (Thaler and Ravishankar, 1998). A group above `bound` times the average load is put behind the others
    (Mirrokni, Thorup and Zadimoghaddam, 2016), which keeps a popular key from drowning one group.
    """
    if not groups:
        return []
    demand = sum(group.busy + group.queued for group in groups) + 1
    slots = sum(group.slots for group in groups) or 1

    def score(group: GroupCapacity) -> tuple[bool, bytes]:
        allowed = bound * demand * group.slots / slots
        over = group.busy + group.queued + 1 > max(allowed, group.slots)
        return (not over, hashlib.sha256(f"{key}\0{group.group_id}".encode()).digest())

    return sorted(groups, key=score, reverse=True)
