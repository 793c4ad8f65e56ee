"""Chooses groups for jobs, and counts the jobs that were routed to a group but are not announced to its leader yet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from raygrid.core.routing.choice import RoutingPolicy, rank
from raygrid.core.routing.ranking import Ranking
from raygrid.core.routing.spreading import deal, spread
from raygrid.errors import BusyError, UnavailableError
from raygrid.models import GroupCapacity, NewJob
from raygrid.parent.known_groups import SILENT_S, KnownGroups, now
from raygrid.settings.model import GridSettings
from raygrid.store import Unfinished


class GroupRouting:
    """Chooses groups by the routing settings. `home` is the group of this parent's rack, if it runs in one."""

    def __init__(self, known: KnownGroups, settings: GridSettings, home: str | None) -> None:
        routing = settings.routing
        self._known = known
        self._home = home
        self._policy = RoutingPolicy(routing.policy, routing.site_distance, routing.hash_load_bound, routing.patience_s)
        self._max_queued = routing.max_queued
        self._ranking = Ranking(home)

    def choose(self, affinity: str | None, site: str | None) -> str:
        """The group for a job; the job counts as promised to the group until it is announced or released.

        Raises:
            UnavailableError: no group has a leader that answers.
            BusyError: every group's queue is full.
        """
        chosen = None
        if not (self._policy.goes_by_hash(affinity) or self._policy.goes_by_distance(site)):
            chosen = self._least_loaded()
        if chosen is None:
            room = [group for group in self._candidates() if group.queued < self._max_queued]
            if not room:
                raise self._full()
            chosen = rank(self._policy, room, affinity=affinity, site=site, home=self._home)[0]
        self._promise(chosen.group_id, 1)
        return chosen.group_id

    def choose_many(
        self, jobs: Sequence[NewJob | Unfinished], *, instead_of: str | None = None
    ) -> list[tuple[int, str]]:
        """The groups for many jobs, each with the job's index; jobs with equal affinity and site are spread together.

        All jobs are promised, or none. `instead_of` is a group that the jobs leave: then only as many are promised as
        other groups can take now, the first ones of those with equal affinity and site.

        Raises:
            UnavailableError: no group has a leader that answers.
            BusyError: the groups' queues have no room for all of them.
        """
        candidates = self._candidates() if instead_of is None else self._others(instead_of)
        loads = {group.group_id: group for group in candidates}
        alike: dict[tuple[str | None, str | None], list[int]] = {}
        for index, job in enumerate(jobs):
            alike.setdefault((job.affinity, job.site), []).append(index)
        chosen: list[tuple[int, str]] = []
        for (affinity, site), indexes in alike.items():
            shares = spread(
                self._policy,
                list(loads.values()),
                len(indexes),
                affinity=affinity,
                site=site,
                home=self._home,
                max_queued=self._max_queued,
            )
            if sum(share for _, share in shares) < len(indexes) and instead_of is None:
                raise self._full()
            for group_id, share in shares:
                loads[group_id] = replace(loads[group_id], queued=loads[group_id].queued + share)
            chosen += zip(indexes, deal(shares), strict=False)
        for group_id, count in Counter(group_id for _, group_id in chosen).items():
            self._promise(group_id, count)
        return chosen

    def release(self, group_id: str, count: int = 1) -> None:
        """Cancel a promise: these jobs will not be announced."""
        if self._known.get(group_id) is not None:
            self._promise(group_id, -count)

    def _promise(self, group_id: str, count: int) -> None:
        known = self._known.by_id[group_id]
        known.promised = max(0, known.promised + count)
        self._known.changed.add(group_id)

    def _least_loaded(self) -> GroupCapacity | None:
        """The group with the lowest load; None if none is suitable, so that all have to be examined."""
        by_id, changed = self._known.by_id, self._known.changed
        for group_id in changed:
            known = by_id.get(group_id)
            if known is None or known.capacity is None:
                self._ranking.drop(group_id)
            else:
                self._ranking.put(known.load(known.capacity))
        changed.clear()
        since = now() - SILENT_S

        def may(group: GroupCapacity) -> bool:
            answers = by_id[group.group_id].answered_at > since
            return answers and group.queued < self._max_queued and not self._known.is_avoided(group.group_id)

        return self._ranking.first(may)

    def _candidates(self) -> list[GroupCapacity]:
        # Jobs are accepted even if no leader answers: they are in the store, and the next leader finds them there.
        live = self._known.capacities()
        wanted = [group for group in live if not self._known.is_avoided(group.group_id)]
        candidates = wanted or live or self._known.capacities(silent_too=True)
        if not candidates:
            raise UnavailableError("no group can take the job now: no leader answers yet; try again", retry_after_s=2.0)
        return candidates

    def _others(self, group_id: str) -> list[GroupCapacity]:
        """The groups that can take over and run the jobs of another group."""
        return [
            group
            for group in self._known.capacities()
            if group.slots > 0 and group.group_id != group_id and not self._known.is_avoided(group.group_id)
        ]

    def _full(self) -> BusyError:
        return BusyError(
            f"every group's queue is full ({self._max_queued} jobs each); try again later", retry_after_s=5.0
        )
