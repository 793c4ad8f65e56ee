"""The groups of this parent: their leaders (`leader_polls.py`), routing (`group_routing.py`), and calls to leaders.

One poll per candidate waits for changes of jobs; its answer also has the load. At most one call per group at a time
announces new jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from raygrid.core.result_sources import NodePlace
from raygrid.core.routing.lost_groups import takes_jobs
from raygrid.errors import GroupNotFoundError, HandOverError, RaygridError, UnavailableError
from raygrid.models import GroupCapacity, QueuedJob
from raygrid.parent.group_routing import GroupRouting
from raygrid.parent.known_groups import KnownGroup, KnownGroups, now
from raygrid.parent.leader_polls import LeaderPolls
from raygrid.parent.waiters import Waiters
from raygrid.settings.model import GridSettings
from raygrid.transport.ports import GroupDiscovery, LeaderCalls

logger = logging.getLogger(__name__)

HAND_OVER_S = 5.0
NODES_S = 3.0


class Groups:
    """All groups. The owner opens and closes it.

    Attributes:
        home: the group of this parent's rack, if it runs in one.
        known: the groups, with their leaders and loads.
        routing: chooses groups for jobs.
        polls: follows the groups.
    """

    def __init__(
        self, discovery: GroupDiscovery, settings: GridSettings, waiters: Waiters, home: str | None = None
    ) -> None:
        self.home = home
        self.known = KnownGroups()
        self.routing = GroupRouting(self.known, settings, home)
        self.polls = LeaderPolls(self.known, discovery, settings, waiters)

    async def open(self) -> None:
        """Begin to follow the groups."""
        await self.polls.open()

    async def close(self) -> None:
        """Stop following."""
        await self.polls.close()

    def capacities(self, *, silent_too: bool = False) -> list[GroupCapacity]:
        """See `KnownGroups.capacities`."""
        return self.known.capacities(silent_too=silent_too)

    def place_of(self, node_id: str) -> NodePlace | None:
        """The group of a node and the address of its cached results; None for an unknown node."""
        found = (known.place_of(node_id) for known in self.known)
        return next((place for place in found if place is not None), None)

    def announce(self, group_id: str, jobs: Sequence[QueuedJob]) -> None:
        """Announce new jobs to a leader in the background. If a notice is lost, the leader finds them in the store."""
        known = self.known.get(group_id)
        if known is not None:
            known.notices.put_all(jobs)

    async def cancel(self, group_id: str, job_ids: Sequence[str]) -> None:
        """Announce jobs to cancel to a leader.

        Raises:
            UnavailableError: it did not answer; the next leader finds the request in the store.
        """
        known = self.known.get(group_id)
        if known is None or known.leader is None or group_id in self.known.lost:
            raise UnavailableError(f"group {group_id} has no leader now")
        await known.leader.cancel(job_ids)

    async def forget(self, group_id: str, job_ids: Sequence[str]) -> None:
        """Announce jobs that were moved to another group to their former leader, if it can be reached."""
        known = self.known.get(group_id)
        try:
            if known is not None and known.leader is not None:
                await known.leader.forget(job_ids)
        except RaygridError as error:
            logger.info("group %s missed a notice of moved jobs; its next scan finds out: %s", group_id, error)

    async def hand_over(self, group_id: str, term: int | None = None) -> tuple[GroupCapacity, bool]:
        """Have a group's leader step down for another candidate; returns when that candidate leads.

        With `term`, nothing happens if the lead of that term is over: a repeated request would give the lead back.

        Returns:
            The load of the group, and whether its leader stepped down for this call.

        Raises:
            GroupNotFoundError: there is no such group.
            HandOverError: there is no other candidate, or none took over in time.
            UnavailableError: its leader did not answer.
        """
        known, leader, others = self._require_other_candidate(group_id)
        if term is not None and known.term > term:
            return self._load_of(group_id), False
        await self._step_down(group_id, known, leader, others)
        return self._load_of(group_id), True

    def _load_of(self, group_id: str) -> GroupCapacity:
        return next(group for group in self.capacities(silent_too=True) if group.group_id == group_id)

    async def _step_down(
        self, group_id: str, known: KnownGroup, leader: LeaderCalls, others: Sequence[LeaderCalls]
    ) -> None:
        term = known.term
        await leader.hand_over()
        await asyncio.gather(*(other.stand() for other in others), return_exceptions=True)
        until = now() + HAND_OVER_S
        while known.term <= term:
            known.changed.clear()
            try:
                async with asyncio.timeout(until - now()):
                    await known.changed.wait()
            except TimeoutError:
                raise HandOverError(
                    f"group {group_id}: its leader stepped down, but no other candidate took over within "
                    f"{HAND_OVER_S:g} s; one will take over soon (see GET /groups)"
                ) from None
        # The new leader hears of its nodes a moment later; until then its group would look as if it could not work.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NODES_S):
                while known.capacity is None or not takes_jobs(known.capacity):
                    known.changed.clear()
                    await known.changed.wait()

    def _require_other_candidate(self, group_id: str) -> tuple[KnownGroup, LeaderCalls, Sequence[LeaderCalls]]:
        """The group, its leader and the candidates that can take the lead over; raises as `hand_over`."""
        known = self.known.get(group_id)
        if known is None:
            names = ", ".join(sorted(self.known.by_id))
            raise GroupNotFoundError(f"there is no group {group_id!r}; the groups are {names}")
        if known.leader is None:
            raise UnavailableError(f"group {group_id} has no leader now; try again")
        others = known.others_than(known.leader)
        if not others:
            raise HandOverError(
                f"group {group_id} has only one candidate, because its rack has one node; no other can take the lead"
            )
        return known, known.leader, others
