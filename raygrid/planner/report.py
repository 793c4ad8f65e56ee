"""A simulation of scale: a grid of any size on a virtual clock, its routing and placement real, the rest a model.

`simulate` runs one; `sweep` runs several sizes one after another. Nothing fails here.
Time in the deciding code is the processor's; all other time is virtual, and the same seed makes the same steps.
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

WARM_UP_S = 2.0  # leaders hear their nodes, the parent hears the leaders, then jobs come
BATCH = 10_000  # jobs of one submit where all come at once
NODES_PER_GROUP = 50  # where the number of groups is not given
WINDOW = 1_024
LEAST_JOBS = 20_000  # of one size in a sweep
SIZES = (10, 100, 1_000, 10_000)
# Nodes with nothing to say are heard every second, and leaders look at the time ten times as often. That decides
# nothing here, as nothing fails: jobs of hours may be heard of less often, so that a simulation costs its jobs only.
POLL_S, POLL_SHARE, TICK_SHARE = 1.0, 0.5, 0.1
# So many of these polls a group lives through before the next one has its turn, where no job comes meanwhile.
POLLS_PER_TURN = 4


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated.

    Attributes:
        nodes: nodes of all groups together.
        groups: groups; each has as many nodes as any other, give or take one.
        slots: of each node.
        jobs: how many come.
        run_times: how long they run.
        arrivals: when they come.
        placement: policy by which groups choose nodes.
        window: queued jobs that a leader holds in memory.
        seed: what is drawn is drawn from it.
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
            raise InvalidRequestError(f"{self.groups} groups need as many nodes at least, and there are {self.nodes}")

    def resized(self, nodes: int) -> Scenario:
        """The same with another number of nodes, in groups of about the same size."""
        return replace(self, nodes=nodes, groups=math.ceil(nodes * self.groups / self.nodes))


@dataclass(frozen=True, slots=True)
class ScenarioOutcome:
    """What came of it.

    Attributes:
        scenario: what was simulated.
        ended: jobs that ended; all, unless something is wrong.
        routing_us: CPU time for routing a job, microseconds.
        placement_us: CPU time of leaders for placing an attempt, with all that they hear of it before and after.
        load_us: CPU time of leaders for telling parents their load, by job.
        watching: part of a core that one leader needs for nodes with nothing to say, heard every second.
        makespan_s: from the first arrival to the last end.
        utilisation: part of all slots' time in which they ran jobs, until the last end.
        utilisation_before: the same until the last start: then slots idle for want of jobs.
        waits_s: from arrival to slot: median, 99 % and longest.
        seconds: how long the simulation took.
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
        """CPU time for deciding all there is to decide of a job, microseconds."""
        return self.routing_us + self.placement_us + self.load_us

    @property
    def decisions_per_s(self) -> float:
        """How many jobs one core routes and places in a second."""
        return 1e6 / self.decision_us

    def within_s(self, share: float) -> float:
        """By when that part of the jobs had ended."""
        return _quantile(self.ends_s, share)


def simulate(scenario: Scenario) -> ScenarioOutcome:
    """Run the jobs of a scenario to their ends."""
    simulation = Simulation(scenario)
    simulation.run()
    return simulation.outcome()


def sweep(scenario: Scenario, sizes: tuple[int, ...]) -> Iterator[ScenarioOutcome]:
    """Run it with other numbers of nodes and as many jobs for each, in groups of the same size if they are full."""
    for nodes in sizes:
        jobs = max(min(LEAST_JOBS, scenario.jobs), scenario.jobs * nodes // max(sizes))
        yield simulate(replace(scenario.resized(nodes), jobs=jobs))


class Simulation:
    """One run of a scenario. Time in it is seconds from the moment at which jobs begin to come.

    Attributes:
        run_times: how long each job runs.
        arrivals: when each comes.
        ended: how many have ended.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        count, random = scenario.jobs, Random(scenario.seed)
        self.run_times = scenario.run_times.draw(count, random)
        self.arrivals = scenario.arrivals.draw(count, random)
        self._waits = array("d", bytes(8 * count))
        self._ends = array("d", bytes(8 * count))
        self.ended = 0
        self._turns, self._agenda = Turns(), Agenda()  # of the groups, and the parent's
        self._routing, self._placement, self._load, self._watching = Meter(), Meter(), Meter(), Meter()
        self._parent = ModelParent(self._agenda, self._turns, self._routing, self._load)
        self._zero = STARTS_AT + WARM_UP_S
        self._next_arrival = self._zero
        self._seconds, self._on_cpu, self._lived_s = 0.0, 1.0, 0.0
        self._poll_s = max(POLL_S, POLL_SHARE * sum(self.run_times) / count)

    def run(self, wanted: int | None = None, until_s: float = math.inf) -> float:
        """Run until so many jobs have ended (all, unless said otherwise), or that time has come.

        Returns:
            When the last of so many ended; infinity if they did not by then. Some more may have, for groups take turns.
        """
        began, began_cpu, collecting = time.perf_counter(), time.process_time(), gc.isenabled()
        wanted = self._scenario.jobs if wanted is None else wanted
        turn_s = POLLS_PER_TURN * self._poll_s
        now, until = STARTS_AT, self._zero + until_s
        gc.disable()  # it would walk what all leaders hold together, whenever the rest of the process calls for it
        try:
            self._open()
            while self.ended < wanted and now < until:
                # A group shows to others only by where the parent puts jobs: until one comes it is on its own.
                now = min(now + turn_s, self._next_arrival, until)
                self._turns.run(now)
                self._agenda.run(now)
        finally:
            if collecting:
                gc.enable()
        self._seconds = time.perf_counter() - began
        # Asking for CPU time around every decision would cost more than many a decision. What others took of the
        # processor is spread over all that was measured instead.
        self._on_cpu = min(1.0, (time.process_time() - began_cpu) / self._seconds)
        self._lived_s = now - self._zero
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
        self._placement.ns = self._load.ns = self._watching.ns = 0  # what leaders did before there were jobs
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
        """What came of it, once all jobs have ended."""
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
            self._watching.ns * self._on_cpu / 1e9 / scenario.groups / self._lived_s * self._poll_s / POLL_S,
            makespan_s,
            sum(self.run_times) / (slots * makespan_s),
            before_s / (slots * (last - self.arrivals[0])),
            (_quantile(waits, 0.5), _quantile(waits, 0.99), waits[-1]),
            self._seconds,
            ends,
        )


def _quantile(ordered: array[float], share: float) -> float:
    """The smallest value that this part of all values does not exceed."""
    return ordered[max(0, min(len(ordered), -int(-share * len(ordered) // 1)) - 1)]
