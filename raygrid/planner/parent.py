"""The simulated parent: routes jobs by the load that leaders report, as `raygrid.parent.groups` does.

It has its own agenda, as groups have theirs. Calls between them take `CALL_S` in both directions.
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

REPORT_S = 0.1  # interval of a leader's reports while its load changes
MOST_QUEUED = 1 << 40  # the simulated store has no limit


class ModelParent:
    """One parent, which gets all jobs; `routing` and `load` measure the costs of routing and of leaders' reports."""

    def __init__(self, agenda: Agenda, turns: Turns, routing: Meter, load: Meter) -> None:
        self._agenda = agenda
        self._turns = turns
        self._routing = routing
        self._load = load
        self._policy = RoutingPolicy()
        self._groups: dict[str, ModelGroup] = {}
        self._capacities: dict[str, GroupCapacity] = {}
        self._sent: dict[str, int] = {}  # jobs sent to a group since its last report
        self._ranking = Ranking()
        self._stale: set[str] = set()  # groups whose place in the ranking is outdated
        self._reporting: set[str] = set()  # groups whose next report is planned

    def open(self, groups: Sequence[ModelGroup], at: float) -> None:
        """Connect to the groups; their first reports come at that time."""
        for group in groups:
            self._groups[group.group_id] = group
            group.agenda.at(at, self._report, group)
            self._turns.wake(group.agenda)

    def news(self, group: ModelGroup) -> None:
        """Plan a report of a group whose load has changed."""
        if group.group_id not in self._reporting:
            self._reporting.add(group.group_id)
            group.agenda.after(REPORT_S, self._report, group)

    def _report(self, group: ModelGroup) -> None:
        self._reporting.discard(group.group_id)
        began = time.perf_counter_ns()
        capacity = group.capacity()
        self._load.ns += time.perf_counter_ns() - began
        self._load.count += 1
        self._agenda.at(group.agenda.now + CALL_S, self._reported, capacity)

    def _reported(self, capacity: GroupCapacity) -> None:
        self._capacities[capacity.group_id] = capacity
        self._sent[capacity.group_id] = 0
        self._stale.add(capacity.group_id)

    def submit(self, number: int) -> None:
        """Route one job."""
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
        """Route many jobs at once."""
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
        reported = self._capacities[group_id]
        return replace(reported, queued=reported.queued + self._sent[group_id])
