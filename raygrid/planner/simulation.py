"""Simulates a grid of any size on a virtual clock: real routing and placement, a model of the rest, no failures.

`simulate` runs one scenario, `sweep` several sizes of it. The cost of deciding code is measured in real CPU time; all
other time is virtual, and the same seed gives the same steps.
"""

from __future__ import annotations

import gc
import math
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from raygrid.core.group.policy import GroupPolicy
from raygrid.errors import InvalidRequestError
from raygrid.planner.clock import STARTS_AT, Agenda, Turns
from raygrid.planner.group import Meter, ModelGroup
from raygrid.planner.load import Arrivals, RunTimes
from raygrid.planner.node import ModelNode
from raygrid.planner.parent import ModelParent

WARM_UP_S = 2.0  # before jobs arrive: first reports of nodes to leaders, and of leaders to the parent
BATCH = 10_000  # jobs of one submit, if all arrive at once
NODES_PER_GROUP = 50  # unless the number of groups is given
WINDOW = 1_024
LEAST_JOBS = 20_000  # of one size in a sweep
SIZES = (10, 100, 1_000, 10_000)
# Nodes without reports are polled every second, and ticks come ten times as often. Without failures they change no
# decision: for long jobs they are less frequent, so that the cost of a simulation depends on the number of jobs only.
POLL_S, POLL_SHARE, TICK_SHARE = 1.0, 0.5, 0.1
POLLS_PER_TURN = 4  # how long a group's turn is at most; an arrival ends it


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated.

    Attributes:
        nodes: nodes of all groups together.
        groups: groups; their numbers of nodes differ by one at most.
        slots: of each node.
        jobs: number of jobs.
        run_times: their run times.
        arrivals: their arrivals.
        placement: policy by which groups choose nodes.
        window: queued jobs that a leader holds in memory.
        seed: of all random numbers.
    """

    nodes: int
    groups: int
    slots: int = 8
    jobs: int = 1_000_000
    run_times: RunTimes = field(default_factory=lambda: RunTimes(10.0, 0.8))
    arrivals: Arrivals = field(default_factory=Arrivals)
    placement: str = "least_loaded"
    window: int = WINDOW
    seed: int = 0

    def __post_init__(self) -> None:
        if self.groups > self.nodes:
            raise InvalidRequestError(f"{self.groups} groups need at least {self.groups} nodes, not {self.nodes}")

    def resized(self, nodes: int) -> Scenario:
        """The same scenario with another number of nodes, in groups of about the same size."""
        return replace(self, nodes=nodes, groups=math.ceil(nodes * self.groups / self.nodes))


@dataclass(frozen=True, slots=True)
class ScenarioOutcome:
    """The results of a simulation.

    Attributes:
        scenario: what was simulated.
        ended: jobs that ended, which should be all.
        routing_us: CPU time for routing a job, microseconds.
        placement_us: CPU time of leaders for placing an attempt, including the events before and after it.
        load_us: CPU time of leaders for reporting their load to parents, per job.
        watching: part of a core that one leader needs to poll idle nodes every second.
        makespan_s: from the first arrival to the last end.
        utilisation: part of the slots' time in which jobs ran, until the last end.
        utilisation_before: the same until the last start, after which slots are idle because no jobs are left.
        waits_s: time from arrival to slot: median, 99 % quantile and maximum.
        seconds: real time of the simulation.
        ends_s: when jobs ended, seconds from the beginning, in order.
    """

    scenario: Scenario
    ended: int
    routing_us: float
    placement_us: float
    load_us: float
    watching: float
    makespan_s: float
    utilisation: float
    utilisation_before: float
    waits_s: tuple[float, float, float]
    seconds: float
    ends_s: array[float] = field(repr=False)

    @property
    def decision_us(self) -> float:
        """CPU time of all decisions for a job, microseconds."""
        return self.routing_us + self.placement_us + self.load_us

    @property
    def decisions_per_s(self) -> float:
        """How many jobs a core routes and places per second."""
        return 1e6 / self.decision_us

    def within_s(self, share: float) -> float:
        """When that share of the jobs had ended."""
        return _quantile(self.ends_s, share)


def simulate(scenario: Scenario) -> ScenarioOutcome:
    """Run the jobs of a scenario to their ends."""
    simulation = Simulation(scenario)
    simulation.run()
    return simulation.outcome()


def sweep(scenario: Scenario, sizes: tuple[int, ...]) -> Iterator[ScenarioOutcome]:
    """Simulate other numbers of nodes with proportional numbers of jobs, in groups of about the same size."""
    for nodes in sizes:
        jobs = max(min(LEAST_JOBS, scenario.jobs), scenario.jobs * nodes // max(sizes))
        yield simulate(replace(scenario.resized(nodes), jobs=jobs))


class Simulation:
    """One run of a scenario. Times are seconds from the beginning of arrivals.

    Attributes:
        run_times: run time of each job.
        arrivals: arrival of each job.
        ended: number of ended jobs.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        count, random = scenario.jobs, Random(scenario.seed)
        self.run_times = scenario.run_times.draw(count, random)
        self.arrivals = scenario.arrivals.draw(count, random)
        self._waits = array("d", bytes(8 * count))
        self._ends = array("d", bytes(8 * count))
        self.ended = 0
        self._turns, self._agenda = Turns(), Agenda()  # of the groups; of the parent
        self._routing, self._placement, self._load, self._watching = Meter(), Meter(), Meter(), Meter()
        self._parent = ModelParent(self._agenda, self._turns, self._routing, self._load)
        self._zero = STARTS_AT + WARM_UP_S
        self._next_arrival = self._zero
        self._seconds, self._on_cpu, self._simulated_s = 0.0, 1.0, 0.0
        self._poll_s = max(POLL_S, POLL_SHARE * sum(self.run_times) / count)

    def run(self, wanted: int | None = None, until_s: float = math.inf) -> float:
        """Run until `wanted` jobs (by default all) have ended, or until `until_s`.

        Returns:
            When the last of the wanted jobs ended; infinity if some did not end in time. More jobs may have ended,
            because groups take turns.
        """
        began, began_cpu, collecting = time.perf_counter(), time.process_time(), gc.isenabled()
        wanted = self._scenario.jobs if wanted is None else wanted
        turn_s = POLLS_PER_TURN * self._poll_s
        now, until = STARTS_AT, self._zero + until_s
        gc.disable()  # it would examine the objects of all leaders together
        try:
            self._open()
            while self.ended < wanted and now < until:
                # Groups affect each other only through routing: until the next arrival they are independent.
                now = min(now + turn_s, self._next_arrival, until)
                self._turns.run(now)
                self._agenda.run(now)
        finally:
            if collecting:
                gc.enable()
        self._seconds = time.perf_counter() - began
        # Reading the CPU clock around a decision would cost more than the decision. So all measured times are scaled by
        # the share of real time in which this process had the processor.
        self._on_cpu = min(1.0, (time.process_time() - began_cpu) / self._seconds)
        self._simulated_s = now - self._zero
        return self._ended_s(wanted)

    def _open(self) -> None:
        scenario = self._scenario
        poll_s = self._poll_s
        policy = GroupPolicy(placement=scenario.placement, window=scenario.window, node_timeout_s=4 * poll_s)
        groups = []
        for number in range(scenario.groups):
            group = ModelGroup(
                f"rack-{number + 1:03}",
                policy,
                Agenda(),
                self._placement,
                self._watching,
                TICK_SHARE * poll_s,
                self._over,
                self._parent.news,
            )
            members = range(number, scenario.nodes, scenario.groups)
            group.open([self._node(f"{group.group_id}-{each + 1:05}", group.agenda) for each in members])
            self._turns.wake(group.agenda)
            groups.append(group)
        self._parent.open(groups, STARTS_AT + WARM_UP_S / 2)
        self._agenda.at(self._zero, self._begin)

    def _node(self, node_id: str, agenda: Agenda) -> ModelNode:
        return ModelNode(node_id, self._scenario.slots, agenda, self._poll_s, self._run_time_s, self._started)

    def _begin(self) -> None:
        self._placement.ns = self._load.ns = self._watching.ns = 0  # drop the cost of the warm-up
        if self._scenario.arrivals.at_once:
            for first in range(0, self._scenario.jobs, BATCH):
                self._parent.submit_batch(range(first, min(first + BATCH, self._scenario.jobs)))
            self._next_arrival = math.inf
        else:
            self._expect(0)

    def _expect(self, number: int) -> None:
        self._next_arrival = max(self._agenda.now, self._zero + self.arrivals[number])
        self._agenda.at(self._next_arrival, self._arrive, number)

    def _arrive(self, number: int) -> None:
        self._parent.submit(number)
        if number + 1 < self._scenario.jobs:
            self._expect(number + 1)
        else:
            self._next_arrival = math.inf

    def _run_time_s(self, job_id: str) -> float:
        return self.run_times[int(job_id)]

    def _started(self, job_id: str, at: float) -> None:
        number = int(job_id)
        self._waits[number] = at - self._zero - self.arrivals[number]

    def _over(self, job_id: str, at: float) -> None:
        number = int(job_id)
        assert not self._ends[number], f"job {job_id} has ended twice"
        self._ends[number] = at - self._zero
        self.ended += 1

    def _ended_s(self, wanted: int) -> float:
        return sorted(end for end in self._ends if end)[wanted - 1] if self.ended >= wanted else math.inf

    def outcome(self) -> ScenarioOutcome:
        """The results, when all jobs have ended."""
        scenario, jobs = self._scenario, self._scenario.jobs
        makespan_s = max(self._ends) - self.arrivals[0]
        slots = scenario.nodes * scenario.slots
        starts = [at + wait for at, wait in zip(self.arrivals, self._waits, strict=True)]
        last = max(starts)
        before_s = sum(min(run_s, last - at) for at, run_s in zip(starts, self.run_times, strict=True))
        waits, ends = array("d", sorted(self._waits)), array("d", sorted(self._ends))
        return ScenarioOutcome(
            scenario,
            self.ended,
            self._routing.each_us * self._on_cpu,
            self._placement.each_us * self._on_cpu,
            self._load.ns / 1000 / jobs * self._on_cpu,
            self._watching.ns * self._on_cpu / 1e9 / scenario.groups / self._simulated_s * self._poll_s / POLL_S,
            makespan_s,
            sum(self.run_times) / (slots * makespan_s),
            before_s / (slots * (last - self.arrivals[0])),
            (_quantile(waits, 0.5), _quantile(waits, 0.99), waits[-1]),
            self._seconds,
            ends,
        )


def _quantile(ordered: array[float], share: float) -> float:
    """The smallest value that at least this share of the sorted values does not exceed."""
    return ordered[max(0, min(len(ordered), -int(-share * len(ordered) // 1)) - 1)]
