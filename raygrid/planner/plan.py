"""How many nodes meet a deadline: a search over simulations of scale, all of the very same jobs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from raygrid.errors import InvalidRequestError
from raygrid.planner.report import Scenario, Simulation


@dataclass(frozen=True, slots=True)
class NodeCountResult:
    """What came of a number of nodes.

    Attributes:
        nodes: how many.
        ended: jobs that ended by the deadline, at least; those beyond the wanted ones were not waited for.
        ends_s: when the last of the wanted jobs ended; None if that was later.
    """

    nodes: int
    ended: int
    ends_s: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The smallest number of nodes that meets a deadline.

    Attributes:
        scenario: the jobs, on that many nodes.
        deadline_s: by when they have to end.
        wanted: how many of them have to.
        found: that number of nodes.
        fewer: one node fewer, which does not do; None where it cannot by the work that there is to do alone.
    """

    scenario: Scenario
    deadline_s: float
    wanted: int
    found: NodeCountResult
    fewer: NodeCountResult | None

    @property
    def slots(self) -> int:
        """Slots of all nodes."""
        return self.scenario.nodes * self.scenario.slots


def plan(
    scenario: Scenario, deadline_s: float, share: float, tried: Callable[[NodeCountResult], None] = lambda _: None
) -> Plan:
    """Find the smallest number of nodes, up to those of the scenario, at which a share of the jobs ends in time.

    Raises:
        InvalidRequestError: no number of nodes does, or more than the scenario has would be needed.
    """
    wanted = math.ceil(share * scenario.jobs)
    least = _least_nodes(scenario, deadline_s, wanted)

    def attempt(nodes: int) -> NodeCountResult:
        simulation = Simulation(scenario.resized(nodes))
        at_s = simulation.run(wanted, deadline_s)
        came = NodeCountResult(nodes, simulation.ended, at_s if at_s <= deadline_s else None)
        tried(came)
        return came

    low, fewer, step = least - 1, None, 1  # so many do not do
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
        came = attempt((low + found.nodes) // 2)
        if came.ends_s is None:
            low, fewer = came.nodes, came
        else:
            found = came
    return Plan(scenario.resized(found.nodes), deadline_s, wanted, found, fewer)


def _least_nodes(scenario: Scenario, deadline_s: float, wanted: int) -> int:
    """Fewer nodes than these cannot do the work, however well it is spread."""
    drawn = Simulation(scenario)
    alone = sorted(at + run_s for at, run_s in zip(drawn.arrivals, drawn.run_times, strict=True))
    if alone[wanted - 1] >= deadline_s:
        raise InvalidRequestError(
            f"no number of nodes is enough: {wanted} jobs that waited for nothing would need {alone[wanted - 1]:g} s, "
            f"as they come late or run long; allow a later --deadline or a smaller --share"
        )
    work_s = sum(sorted(drawn.run_times)[:wanted])
    return min(scenario.nodes, max(1, math.ceil(work_s / (scenario.slots * deadline_s))))
