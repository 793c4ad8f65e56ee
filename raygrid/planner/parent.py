"""The parent of a simulation of scale: routes jobs by what leaders say, as `raygrid.parent.groups` does.

It has its own agenda, as groups have theirs. What it does to groups happens at its time and shows at theirs after a
call; what leaders tell it, it hears after a call too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from raygrid.core.routing.choice import RoutingPolicy
from raygrid.core.routing.ranking import Ranking
from raygrid.core.routing.spreading import deal, spread
from raygrid.models import GroupCapacity
from raygrid.planner.clock import Agenda, Turns
from raygrid.planner.group import CALL_S, Meter, ModelGroup

HEAR_S = 0.1  # a leader is heard this often while its load changes
MOST_QUEUED = 1 << 40  # the store of a model takes everything


class ModelParent:
    """One parent that takes all jobs.

    Args:
        agenda: its own; tells the time.
        turns: those that the groups take.
        routing: counts what routing costs.
        load: counts what it costs leaders to tell their load.
    """

    def __init__(self, agenda: Agenda, turns: Turns, routing: Meter, load: Meter) -> None:
        self._agenda = agenda
        self._turns = turns
        self._routing = routing
        self._telling = load
        self._policy = RoutingPolicy()
        self._groups: dict[str, ModelGroup] = {}
        self._capacities: dict[str, GroupCapacity] = {}
        self._sent: dict[str, int] = {}  # since a leader told its load
        self._ranking = Ranking()
        self._stale: set[str] = set()  # groups whose place in the ranking is out of date
        self._hears: set[str] = set()  # groups that are about to be heard

    def open(self, groups: Sequence[ModelGroup], at: float) -> None:
        """Meet the groups, and hear them at that instant for the first time."""
        for group in groups:
            self._groups[group.group_id] = group
            group.agenda.at(at, self._hear, group)
            self._turns.wake(group.agenda)

    def news(self, group: ModelGroup) -> None:
        """A group's load has changed: its leader answers the poll that waits, at the latest in a moment."""
        if group.group_id not in self._hears:
            self._hears.add(group.group_id)
            group.agenda.after(HEAR_S, self._hear, group)

    def _hear(self, group: ModelGroup) -> None:
        self._hears.discard(group.group_id)
        began = time.perf_counter_ns()
        capacity = group.capacity()
        self._telling.ns += time.perf_counter_ns() - began
        self._telling.count += 1
        self._agenda.at(group.agenda.now + CALL_S, self._heard, capacity)

    def _heard(self, capacity: GroupCapacity) -> None:
        self._capacities[capacity.group_id] = capacity
        self._sent[capacity.group_id] = 0
        self._stale.add(capacity.group_id)

    def submit(self, number: int) -> None:
        """Take one job."""
        began = time.perf_counter_ns()
        for group_id in self._stale:
            self._ranking.put(self._load_of(group_id))
        self._stale.clear()
        chosen = self._ranking.first(lambda group: group.queued < MOST_QUEUED)
        assert chosen is not None
        group_id = chosen.group_id
        self._sent[group_id] += 1
        self._stale.add(group_id)
        self._routing.ns += time.perf_counter_ns() - began
        self._routing.count += 1
        self._insert(group_id, (number,))

    def submit_batch(self, numbers: range) -> None:
        """Take many jobs at once."""
        began = time.perf_counter_ns()
        loads = [self._load_of(group_id) for group_id in self._capacities]
        shares = spread(self._policy, loads, len(numbers), max_queued=MOST_QUEUED)
        for group_id, share in shares:
            self._sent[group_id] += share
            self._stale.add(group_id)
        names = deal(shares)
        self._routing.ns += time.perf_counter_ns() - began
        self._routing.count += len(numbers)
        given: dict[str, list[int]] = {}
        for number, group_id in zip(numbers, names, strict=True):
            given.setdefault(group_id, []).append(number)
        for group_id, jobs in given.items():
            self._insert(group_id, jobs)

    def _insert(self, group_id: str, jobs: Sequence[int]) -> None:
        group = self._groups[group_id]
        group.insert(jobs, self._agenda.now)
        self._turns.wake(group.agenda)

    def _load_of(self, group_id: str) -> GroupCapacity:
        heard = self._capacities[group_id]
        return replace(heard, queued=heard.queued + self._sent[group_id])
