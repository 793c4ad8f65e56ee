"""Choosing groups for many jobs at once: the result of routing job by job, computed in steps over whole groups.

Each step fills a set of groups to a common level (water filling): first the free slots, beginning with the emptiest
group, then the queues, beginning with the shortest per slot. So no group of a step queues jobs while another has free
slots, and the queues differ by at most one job per slot. The cost depends on the number of groups, not of jobs.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from raygrid.core.routing.choice import Key, RoutingPolicy, Viewpoint, backlog, by_hash, by_load, demand, hash_limit
from raygrid.models import GroupCapacity

_HALVINGS = 64


def spread(
    policy: RoutingPolicy,
    groups: Sequence[GroupCapacity],
    count: int,
    *,
    affinity: str | None = None,
    site: str | None = None,
    home: str | None = None,
    max_queued: int,
) -> list[tuple[str, int]]:
    """Share `count` equal jobs among the groups, as (name, count) pairs; the sum is lower if no more fit.

    Args:
        policy: the routing settings.
        groups: the reported load, plus the jobs that were sent since.
        count: the number of jobs.
        affinity: the key of all of them, if any.
        site: the site that all of them name, if any.
        home: the group of the parent's rack, if any.
        max_queued: limit of queued jobs per group.
    """
    view = Viewpoint.of(groups, site, home)
    groups = [group for group in groups if group.queued < max_queued]
    able = [group for group in groups if group.slots > 0]
    water = _Water(groups, count, max_queued)
    names = [group.group_id for group in able]

    def load(group: GroupCapacity) -> Key:
        return by_load(group, home)

    def key(group: GroupCapacity) -> Key:
        return view.key(policy, group)

    distant = policy.goes_by_distance(site)
    if affinity is not None and policy.goes_by_hash(affinity):
        bound = policy.hash_load_bound
        near = view.nearest(policy, able) if distant else able
        limited = distant and any(view.room(policy, group) for group in near)
        order = by_hash(near, affinity, bound, count)
        for limits in ({each.group_id: hash_limit(near, each, count, bound) for each in near}, None):
            for group in order:
                most = count if limits is None else limits[group.group_id] - water.demand(group)
                water.pour(group, min(most, water.room(view, policy, group)) if limited else most)
    if distant:
        for distance in sorted({policy.distance(view.site, group) for group in able}):
            here = [group.group_id for group in able if policy.distance(view.site, group) == distance]
            water.fill_slots([name for name in here if name == home], key)
            water.fill_slots(here, key)
            if view.patient:
                water.fill_queues(here, key, policy.queue_limit)
    water.fill_slots(names, key if distant else load)
    water.fill_queues(names, key if distant else load)
    water.fill_queues([group.group_id for group in groups if group.slots <= 0], key if distant else load)
    return water.shares()


def deal(shares: Sequence[tuple[str, int]]) -> list[str]:
    """List a group for each job, so that every group's share is spread evenly from the first job to the last."""
    turns = sorted(((turn + 0.5) / count, name) for name, count in shares for turn in range(count))
    return [name for _, name in turns]


class _Water:
    """The groups with the jobs that they get, and the number of jobs left."""

    def __init__(self, groups: Sequence[GroupCapacity], count: int, max_queued: int) -> None:
        self._now = {group.group_id: group for group in groups}
        self._before = {group.group_id: group.queued for group in groups}
        self._left = count
        self._max_queued = max_queued

    def shares(self) -> list[tuple[str, int]]:
        got = ((name, group.queued - self._before[name]) for name, group in self._now.items())
        return sorted((name, count) for name, count in got if count)

    def demand(self, group: GroupCapacity) -> int:
        """Jobs that a group has now, including those it got here."""
        return demand(self._now[group.group_id])

    def room(self, view: Viewpoint, policy: RoutingPolicy, group: GroupCapacity) -> int:
        """The room that a group has left."""
        return view.room(policy, self._now[group.group_id])

    def pour(self, group: GroupCapacity, most: int) -> None:
        """Give up to `most` jobs to one group."""
        fits = self._max_queued - self._now[group.group_id].queued
        self._give({group.group_id: max(0, min(most, fits, self._left))})

    def fill_slots(self, names: Sequence[str], key: Callable[[GroupCapacity], Key]) -> None:
        """Fill free slots, beginning with the emptiest group."""

        def free(group: GroupCapacity) -> int:
            return group.slots - demand(group)

        most = max((free(self._now[name]) for name in names), default=0)
        self._fill(names, key, free, lambda group, level: math.floor(free(group) + level), -float(max(0, most)), 0.0)

    def fill_queues(
        self,
        names: Sequence[str],
        key: Callable[[GroupCapacity], Key],
        limit: Callable[[GroupCapacity], int] | None = None,
    ) -> None:
        """Fill queues, beginning with the shortest per slot, up to the limit of waiting jobs in each, if given."""

        def rest(group: GroupCapacity) -> int:
            return self._left if limit is None else limit(group) + group.slots - demand(group)

        def up_to(group: GroupCapacity, level: float) -> int:
            return math.floor(level * max(1, group.slots) - backlog(group))

        top = max((backlog(self._now[name]) for name in names), default=0) + self._left
        self._fill(names, key, rest, up_to, 0.0, float(top))

    def _fill(
        self,
        names: Sequence[str],
        key: Callable[[GroupCapacity], Key],
        most: Callable[[GroupCapacity], int],
        amount: Callable[[GroupCapacity, float], int],
        low: float,
        high: float,
    ) -> None:
        """Raise the level from `low` towards `high` while jobs are left, then hand out the last few one by one."""
        caps = {
            name: cap
            for name in names
            if (cap := min(most(self._now[name]), self._max_queued - self._now[name].queued)) > 0
        }
        if not caps or not self._left:
            return
        start = {name: self._now[name] for name in caps}

        def amounts(level: float) -> dict[str, int]:
            return {name: min(cap, max(0, amount(start[name], level))) for name, cap in caps.items()}

        if sum(caps.values()) <= self._left:
            self._give(caps)
            return
        if self._left > len(caps):  # fewer jobs are handed out one by one below
            for _ in range(_HALVINGS):
                middle = (low + high) / 2
                low, high = (middle, high) if sum(amounts(middle).values()) <= self._left else (low, middle)
            given = amounts(low)
            self._give(given)
            caps = {name: cap - given[name] for name, cap in caps.items()}
        line = [(key(self._now[name]), name) for name, cap in caps.items() if cap > 0]
        heapq.heapify(line)
        while self._left and line:
            _, name = heapq.heappop(line)
            self._give({name: 1})
            caps[name] -= 1
            if caps[name] > 0:
                heapq.heappush(line, (key(self._now[name]), name))

    def _give(self, counts: dict[str, int]) -> None:
        for name, count in counts.items():
            self._now[name] = replace(self._now[name], queued=self._now[name].queued + count)
            self._left -= count
