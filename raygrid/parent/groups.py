"""The groups as this parent knows them: their candidates, leader and load.

For each candidate one poll waits for changes of jobs, whose answer also carries the load; for each group at most one
call at a time announces new jobs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from raygrid.core.lease import Lease
from raygrid.core.result_sources import NodePlace
from raygrid.core.routing.choice import RoutingPolicy, rank
from raygrid.core.routing.ranking import Ranking
from raygrid.core.routing.spreading import spread
from raygrid.errors import (
    BusyError,
    GroupNotFoundError,
    GroupRefusedError,
    HandOverError,
    NotLeadingError,
    ProcessEndedError,
    RaygridError,
    UnavailableError,
)
from raygrid.models import GroupCapacity, JobSpec, QueuedJob
from raygrid.parent.waiters import Waiters
from raygrid.settings.model import GridSettings
from raygrid.transport.batching import Coalescer
from raygrid.transport.ports import GroupDiscovery, LeaderCalls

logger = logging.getLogger(__name__)

POLL_S = 1.0
PAUSE_S = 0.2
STANDBY_PAUSE_S = 0.02  # a candidate that stands by answers only after it has waited to become the leader
REFRESH_S = 1.0
SILENT_S = 4.0
REFUSAL_S = 2.0  # a group that refused a job gets no new ones for this long
HAND_OVER_S = 5.0


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class _Known:
    """A group: its candidates, the latest answer of its leader, and what this parent has sent since.

    `leader` is the candidate that gave the latest answer as leader, in `term`, under the name `holder`. `promised`
    counts jobs that were routed to the group but not announced to its leader yet; `announced` counts those that were
    announced since its latest answer.
    """

    pokes: Coalescer[JobSpec | QueuedJob, None]
    followers: dict[LeaderCalls, asyncio.Task[None]] = field(default_factory=dict)
    leader: LeaderCalls | None = None
    term: int = 0
    holder: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    capacity: GroupCapacity | None = None
    answered_at: float = 0.0
    promised: int = 0
    announced: int = 0
    places: dict[str, NodePlace] = field(default_factory=dict)
    places_of: GroupCapacity | None = None

    def load(self, heard: GroupCapacity) -> GroupCapacity:
        """The load that the leader reported, with what was sent since."""
        queued = heard.queued + self.promised + self.announced
        return replace(heard, queued=queued, leader=self.holder, term=self.term)

    def place_of(self, node_id: str) -> NodePlace | None:
        """Where a node of the group is; the index is made when it is first needed after an answer of the leader."""
        if self.capacity is not None and self.places_of is not self.capacity:
            self.places = {node.node_id: NodePlace(node.group_id, node.address) for node in self.capacity.nodes}
            self.places_of = self.capacity
        return self.places.get(node_id)


async def _keep(lease: Lease) -> None:
    """Let a lease run out."""


class Groups:
    """Keeps up with all groups. The owner opens and closes it.

    Args:
        directory: finds groups and leaders.
        settings: how groups are ranked, how many jobs each may have queued; leaders with older settings get these.
        waiters: woken by changes of jobs.
        home: the group of the rack in which this parent stands, if it stands in one.
    """

    def __init__(
        self, directory: GroupDiscovery, settings: GridSettings, waiters: Waiters, home: str | None = None
    ) -> None:
        self._directory = directory
        self._settings = settings
        routing = settings.routing
        self._policy = RoutingPolicy(routing.policy, routing.site_distance, routing.hash_load_bound, routing.patience_s)
        self._max_queued = routing.max_queued
        self._waiters = waiters
        self.home = home
        self.lost: frozenset[str] = frozenset()  # groups without a leader, as the sweeper found
        self.on_refusal: Callable[[str, Sequence[str]], None] = lambda group_id, job_ids: None
        self.give_back: Callable[[Lease], Awaitable[None]] = _keep  # how a lease is given back for its dead holder
        self._refused_until: dict[str, float] = {}
        self._ranking = Ranking(home)
        self._changed: set[str] = set()  # groups whose place in the ranking is out of date
        self._known: dict[str, _Known] = {}
        self._refreshing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin to follow the groups."""
        self._refreshing = asyncio.get_running_loop().create_task(self._refresh_forever(), name="groups")

    async def close(self) -> None:
        """Stop following."""
        tasks = [task for known in self._known.values() for task in known.followers.values()]
        if self._refreshing is not None:
            tasks.append(self._refreshing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(known.pokes.close() for known in self._known.values()))

    # --- what the service calls ----------------------------------------------------------------------------------

    def capacities(self, *, silent_too: bool = False) -> list[GroupCapacity]:
        """The load of every group whose leader has answered lately, with what was sent since.

        With `silent_too`, also of groups whose leader has not answered for a while.
        """
        now = _now()
        return [
            known.load(known.capacity)
            for known in self._known.values()
            if known.capacity is not None and (silent_too or now - known.answered_at < SILENT_S)
        ]

    def choose(self, affinity: str | None, site: str | None) -> str:
        """The group for a job, which is promised to it until `poke` or `release`.

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
            chosen = rank(self._policy, room, affinity=affinity, site=site, home=self.home)[0]
        self._known[chosen.group_id].promised += 1
        self._changed.add(chosen.group_id)
        return chosen.group_id

    def _least_loaded(self) -> GroupCapacity | None:
        """The best group by load; None if no group is in good order, so that all have to be examined."""
        now = _now()
        for group_id in self._changed:
            known = self._known.get(group_id)
            if known is None or known.capacity is None:
                self._ranking.drop(group_id)
            else:
                self._ranking.put(known.load(known.capacity))
        self._changed.clear()

        def may(group: GroupCapacity) -> bool:
            group_id = group.group_id
            heard = now - self._known[group_id].answered_at < SILENT_S
            return (
                heard and group.queued < self._max_queued and group_id not in self.lost and not self._refuses(group_id)
            )

        return self._ranking.first(may)

    def choose_for(
        self, bunches: Sequence[tuple[str | None, str | None, int]], *, instead_of: str | None = None
    ) -> list[list[tuple[str, int]]]:
        """How many jobs of each bunch (affinity, site, count) each group gets; all are promised, or none.

        With `instead_of`, for jobs that are to leave that group: as many as other groups can take now, possibly none.

        Raises:
            UnavailableError: no group has a leader that answers.
            BusyError: the groups' queues have no room for all of them.
        """
        candidates = self._candidates() if instead_of is None else self._others(instead_of)
        loads = {group.group_id: group for group in candidates}
        answers = []
        for affinity, site, count in bunches:
            shares = spread(
                self._policy,
                list(loads.values()),
                count,
                affinity=affinity,
                site=site,
                home=self.home,
                max_queued=self._max_queued,
            )
            if sum(share for _, share in shares) < count and instead_of is None:
                raise self._full()
            for group_id, share in shares:
                loads[group_id] = replace(loads[group_id], queued=loads[group_id].queued + share)
            answers.append(shares)
        for shares in answers:
            for group_id, share in shares:
                self._known[group_id].promised += share
                self._changed.add(group_id)
        return answers

    def release(self, group_id: str, count: int = 1) -> None:
        """Cancel a promise: these jobs will not be announced."""
        known = self._known.get(group_id)
        if known is not None:
            known.promised = max(0, known.promised - count)
            self._changed.add(group_id)

    def _candidates(self) -> list[GroupCapacity]:
        # A silent leader is no reason to refuse a job: the job is in the store, and the next leader finds it there.
        live = self.capacities()
        wanted = [group for group in live if group.group_id not in self.lost and not self._refuses(group.group_id)]
        candidates = wanted or live or self.capacities(silent_too=True)
        if not candidates:
            raise UnavailableError("no group can take the job now: no leader answers yet; try again", retry_after_s=2.0)
        return candidates

    def _others(self, group_id: str) -> list[GroupCapacity]:
        """The groups that can take the jobs of another one and run them."""
        avoided = {group_id, *self.lost}
        return [
            group
            for group in self.capacities()
            if group.slots > 0 and group.group_id not in avoided and not self._refuses(group.group_id)
        ]

    def _refuses(self, group_id: str) -> bool:
        return _now() < self._refused_until.get(group_id, 0.0)

    def _full(self) -> BusyError:
        return BusyError(
            f"every group's queue is full ({self._max_queued} jobs each); try again later", retry_after_s=5.0
        )

    def poke(self, group_id: str, jobs: Sequence[JobSpec | QueuedJob]) -> None:
        """Announce new jobs to a leader, in the background: the store has them, and the leader scans it."""
        known = self._known.get(group_id)
        if known is not None:
            known.pokes.put_all(jobs)

    async def cancel(self, group_id: str, job_ids: Sequence[str]) -> None:
        """Announce jobs to cancel to a leader.

        Raises:
            UnavailableError: it did not answer; it will find the request in the store.
        """
        known = self._known.get(group_id)
        if known is None or known.leader is None or group_id in self.lost:
            raise UnavailableError(f"group {group_id} has no leader now")
        await known.leader.cancel(job_ids)

    async def hand_over(self, group_id: str) -> GroupCapacity:
        """Have a group's leader step down and another candidate take over; returns when that one leads.

        Raises:
            GroupNotFoundError: there is no such group.
            HandOverError: no other candidate stands for it, or none took over in time.
            UnavailableError: its leader did not answer.
        """
        known = self._known.get(group_id)
        if known is None:
            raise GroupNotFoundError(f"there is no group {group_id!r}; the groups are {', '.join(sorted(self._known))}")
        if known.leader is None:
            raise UnavailableError(f"group {group_id} has no leader now; try again")
        others = [link for link in known.followers if link is not known.leader]
        if not others:
            raise HandOverError(
                f"group {group_id} has only one candidate, as its rack has one node; the lead cannot be handed over"
            )
        term = known.term
        await known.leader.hand_over()
        await asyncio.gather(*(link.stand() for link in others), return_exceptions=True)
        until = _now() + HAND_OVER_S
        while known.term <= term:
            known.changed.clear()
            try:
                async with asyncio.timeout(until - _now()):
                    await known.changed.wait()
            except TimeoutError:
                raise HandOverError(
                    f"group {group_id}: its leader stepped down, but no other candidate has taken over within "
                    f"{HAND_OVER_S:g} s. One will soon: look at GET /groups"
                ) from None
        return next(group for group in self.capacities(silent_too=True) if group.group_id == group_id)

    async def forget(self, group_id: str, job_ids: Sequence[str]) -> None:
        """Announce to a leader, if it can be reached, jobs that were moved to another group."""
        known = self._known.get(group_id)
        try:
            if known is not None and known.leader is not None:
                await known.leader.forget(job_ids)
        except RaygridError as error:
            logger.info(
                "group %s: its leader was not informed of moved jobs; its scan will find out: %s", group_id, error
            )

    def place_of(self, node_id: str) -> NodePlace | None:
        """Where a node stands and its cached results are reached."""
        found = (known.place_of(node_id) for known in self._known.values())
        return next((place for place in found if place is not None), None)

    # --- loops --------------------------------------------------------------------------------------------------

    async def _refresh_forever(self) -> None:
        while True:
            try:
                await self._refresh()
            except RaygridError as error:
                logger.warning("the groups cannot be listed; trying again: %s", error)
            except Exception:
                logger.exception("the groups cannot be listed because of an unexpected error; trying again")
            await asyncio.sleep(REFRESH_S)

    async def _refresh(self) -> None:
        found = await self._directory.groups()
        for group_id, links in found.items():
            known = self._known.get(group_id)
            if known is None:
                known = self._known[group_id] = _Known(
                    Coalescer(self._send_to(group_id), name=f"notices to {group_id}")
                )
            for link in links:
                if link not in known.followers:
                    known.followers[link] = asyncio.get_running_loop().create_task(
                        self._follow(group_id, known, link), name=f"follow {group_id}"
                    )
            for link in [each for each in known.followers if each not in links]:
                known.followers.pop(link).cancel()
                if known.leader is link:
                    known.leader = None
        for group_id in self._known.keys() - found.keys():
            self._changed.add(group_id)
            for task in self._known.pop(group_id).followers.values():
                task.cancel()

    def _send_to(self, group_id: str):  # type: ignore[no-untyped-def]  # the closure's type is that of Coalescer's send
        async def send(jobs: Sequence[JobSpec | QueuedJob]) -> list[None]:
            known = self._known.get(group_id)
            try:
                if known is not None and known.leader is not None:
                    await known.leader.enqueue(jobs)
            except GroupRefusedError as error:
                logger.info("group %s refused %d jobs; moving them: %s", group_id, len(jobs), error)
                self._refused_until[group_id] = _now() + REFUSAL_S
                self.on_refusal(group_id, [(job.spec if isinstance(job, QueuedJob) else job).job_id for job in jobs])
            except RaygridError as error:
                logger.info(
                    "group %s: its leader did not get the notice of %d jobs; its scan will find them: %s",
                    group_id,
                    len(jobs),
                    error,
                )
            if known is not None:
                known.promised = max(0, known.promised - len(jobs))
                known.announced += len(jobs)
                self._changed.add(group_id)
            return [None] * len(jobs)

        return send

    async def _follow(self, group_id: str, known: _Known, link: LeaderCalls) -> None:
        """Poll one candidate for changes; only the leader answers."""
        epoch, after = "", 0
        while True:
            try:
                reply = await link.changes(epoch, after, POLL_S)
            except NotLeadingError:
                await asyncio.sleep(STANDBY_PAUSE_S)
                continue
            except RaygridError as error:
                logger.info("group %s: a candidate did not answer a poll; asking again: %s", group_id, error)
                if isinstance(error, ProcessEndedError) and known.leader is link:
                    await self._succeed(group_id, known)
                await asyncio.sleep(PAUSE_S)
                continue
            except Exception:
                logger.exception("group %s: polling a candidate failed unexpectedly; trying again", group_id)
                await asyncio.sleep(PAUSE_S)
                continue
            epoch, after = reply.epoch, reply.last
            if reply.term < known.term:
                # It does not know yet that its term is over: it was frozen, or its network was cut.
                await asyncio.sleep(PAUSE_S)
                continue
            known.leader, known.term, known.holder = link, reply.term, reply.leader
            known.capacity, known.answered_at, known.announced = reply.capacity, _now(), 0
            self._changed.add(group_id)
            known.changed.set()
            if reply.gap:
                self._waiters.wake_all()
            else:
                self._waiters.changed(reply.changes)
            if reply.deployed_at < self._settings.deployed_at:
                await self._send_settings(group_id, link)

    async def _succeed(self, group_id: str, known: _Known) -> None:
        """Have another candidate take over, before the lease runs out, from a leader whose process has ended.

        If Ray is wrong and the process lives, the next term ends its own.
        """
        dead, known.leader = known.leader, None
        others = [link for link in known.followers if link is not dead]
        if not others:
            return  # only the same candidate can lead again
        try:
            await self.give_back(Lease(group_id, known.holder, known.term, datetime.now(UTC)))
            await asyncio.gather(*(link.stand() for link in others), return_exceptions=True)
        except RaygridError as error:
            logger.info(
                "group %s: the lease of its dead leader could not be released; it has to run out: %s", group_id, error
            )

    async def _send_settings(self, group_id: str, link: LeaderCalls) -> None:
        """Send the settings to a leader that follows older ones; a leader with newer settings keeps its own."""
        try:
            await link.configure(self._settings.without_keys)
        except RaygridError as error:
            logger.info("group %s: its leader did not get the newer settings; sending them again: %s", group_id, error)
            await asyncio.sleep(PAUSE_S)
        except Exception:
            logger.exception(
                "group %s: sending newer settings to its leader failed unexpectedly; trying again", group_id
            )
            await asyncio.sleep(PAUSE_S)
