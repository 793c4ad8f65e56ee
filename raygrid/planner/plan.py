"""Finds how many nodes meet a deadline, by simulations of the same jobs with different numbers of nodes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from raygrid.errors import InvalidRequestError
from raygrid.planner.simulation import Scenario, Simulation


@dataclass(frozen=True, slots=True)
class NodeCountResult:
    """The result of a simulation with a number of nodes.

    Attributes:
        nodes: how many.
        ended: jobs that ended by the deadline; the simulation stops after the wanted ones.
        ends_s: when the last of the wanted jobs ended; None if that was after the deadline.
    """

    nodes: int
    ended: int
    ends_s: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The smallest number of nodes that meets a deadline.

    Attributes:
        scenario: the jobs, on that many nodes.
        deadline_s: the deadline.
        wanted: how many jobs must end by then.
        found: the result with that number of nodes.
        fewer: the result with one node fewer, which misses the deadline; None if the total work alone rules it out.
    """

    scenario: Scenario
    deadline_s: float
    wanted: int
    found: NodeCountResult
    fewer: NodeCountResult | None

    @property
    def slots(self) -> int:
        """The slots of all nodes together."""
        return self.scenario.nodes * self.scenario.slots


def plan(
    scenario: Scenario, deadline_s: float, share: float, tried: Callable[[NodeCountResult], None] = lambda _: None
) -> Plan:
    """Find the smallest number of nodes, up to the scenario's, at which a share of the jobs ends in time.

    Raises:
        InvalidRequestError: no number of nodes is enough, or more than the scenario's would be needed.
    """
    wanted = math.ceil(share * scenario.jobs)
    least = _least_nodes(scenario, deadline_s, wanted)

    def attempt(nodes: int) -> NodeCountResult:
        simulation = Simulation(scenario.resized(nodes))
        at_s = simulation.run(wanted, deadline_s)
        result = NodeCountResult(nodes, simulation.ended, at_s if at_s <= deadline_s else None)
        tried(result)
        return result

    low, fewer, step = least - 1, None, 1  # `low` nodes are too few
    found = attempt(min(least, scenario.nodes))
    while found.ends_s is None:
        if found.nodes == scenario.nodes:
            raise InvalidRequestError(
                f"{scenario.nodes} nodes of {scenario.slots} slots are too few: {found.ended} of {wanted} jobs end "
                f"within {deadline_s:g} s; allow more --nodes, a later --deadline or a smaller --share"
            )
        low, fewer = found.nodes, found
        found = attempt(min(low + step, scenario.nodes))
        step *= 2
    while found.nodes - low > 1:
        result = attempt((low + found.nodes) // 2)
        if result.ends_s is None:
            low, fewer = result.nodes, result
        else:
            found = result
    return Plan(scenario.resized(found.nodes), deadline_s, wanted, found, fewer)


def _least_nodes(scenario: Scenario, deadline_s: float, wanted: int) -> int:
    """A lower bound: with fewer nodes, the total work does not fit into the time."""
    drawn = Simulation(scenario)
    alone = sorted(at + run_s for at, run_s in zip(drawn.arrivals, drawn.run_times, strict=True))
    if alone[wanted - 1] >= deadline_s:
        raise InvalidRequestError(
            f"no number of nodes is enough: {wanted} jobs need {alone[wanted - 1]:g} s even if none waits, because of "
            f"their arrivals and run times; allow a later --deadline or a smaller --share"
        )
    work_s = sum(sorted(drawn.run_times)[:wanted])
    return min(scenario.nodes, max(1, math.ceil(work_s / (scenario.slots * deadline_s))))
