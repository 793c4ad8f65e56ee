"""`raygrid plan`: what a decision costs in a grid of a given size, and how many nodes a deadline needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from raygrid.cli.duration import words_of
from raygrid.cli.grid import new_table, print_note, print_out, print_table
from raygrid.cli.options import AsJson

if TYPE_CHECKING:
    from raygrid.planner.plan import NodeCountResult, Plan
    from raygrid.planner.simulation import Scenario, ScenarioOutcome


def plan(
    *,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes; with --deadline the largest.")] = 10_000,
    groups: Annotated[int | None, typer.Option(min=1, help="Number of groups; by default one for 50 nodes.")] = None,
    slots: Annotated[int, typer.Option(min=1, help="Slots of each node.")] = 8,
    jobs: Annotated[int, typer.Option(min=1, help="Number of jobs that arrive.")] = 1_000_000,
    run_time: Annotated[
        str,
        typer.Option(
            metavar="TIMES",
            help="How long jobs run: `lognormal:MEDIAN:SIGMA`, `constant:100ms`, or `file:PATH` with observed seconds, "
            "one on each line.",
        ),
    ] = "lognormal:10s:0.8",
    arrivals: Annotated[
        str,
        typer.Option(
            metavar="PROFILE",
            help="When jobs arrive: `all-at-once`, `poisson:200/s`, or a rate that changes: `steps:50/s@0s,200/s@1h`.",
        ),
    ] = "all-at-once",
    placement: Annotated[
        str, typer.Option(metavar="POLICY", help="`least_loaded` or `weighted_round_robin`.")
    ] = "least_loaded",
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Find the number of nodes with which the jobs end in time.")
    ] = None,
    share: Annotated[float, typer.Option(help="With --deadline: part of the jobs that must end in time.")] = 1.0,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Compare 10, 100, 1,000 and 10,000 nodes, up to --nodes.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random numbers.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Simulate a grid of any size on a virtual clock, with the product's own routing and placement.

    Prints what a decision costs, how well slots are used, and how long jobs wait; with --deadline, how many nodes are
    enough. Failures are not simulated.
    """
    from raygrid.core.group.placement import POLICIES  # noqa: PLC0415 - other commands do not need it
    from raygrid.planner import simulation  # noqa: PLC0415
    from raygrid.planner.load import Arrivals, RunTimes, duration_s  # noqa: PLC0415
    from raygrid.planner.plan import plan as fewest_nodes  # noqa: PLC0415

    if placement not in POLICIES:
        raise typer.BadParameter(f"there is no placement policy {placement!r}; known are {', '.join(POLICIES)}")
    if sweep and deadline is not None:
        raise typer.BadParameter("--sweep compares sizes, --deadline looks for one; give one of them")
    if not 0 < share <= 1:
        raise typer.BadParameter(f"--share must be above 0 and at most 1, not {share:g}")
    if share < 1 and deadline is None:
        raise typer.BadParameter("--share needs a --deadline")
    scenario = simulation.Scenario(
        nodes=nodes,
        groups=-(-nodes // simulation.NODES_PER_GROUP) if groups is None else groups,
        slots=slots,
        jobs=jobs,
        run_times=RunTimes.parse(run_time),
        arrivals=Arrivals.parse(arrivals),
        placement=placement,
        seed=seed,
    )
    if deadline is not None:
        tried = (lambda each: None) if as_json else _print_tried
        made = fewest_nodes(scenario, duration_s(deadline), share, tried=tried)
        typer.echo(json.dumps(_plan_summary(made))) if as_json else _print_plan(made)
        return
    sizes = (*(size for size in simulation.SIZES if size < nodes), nodes) if sweep else (nodes,)
    done = []
    for outcome in simulation.sweep(scenario, sizes):
        done.append(outcome)
        if sweep and not as_json:
            print_note(f"{outcome.scenario.nodes} nodes: {outcome.seconds:.0f} s")
    if as_json:
        rows = [_summary(each, done[0]) for each in done]
        typer.echo(json.dumps({"sizes": rows} if sweep else rows[0]))
    else:
        _print(done)


def _summary(outcome: ScenarioOutcome, first: ScenarioOutcome) -> dict[str, object]:
    return {
        **_size(outcome.scenario),
        "ended": outcome.ended,
        "decisions_per_s": round(outcome.decisions_per_s, 1),
        "decision_us": round(outcome.decision_us, 2),
        "routing_us": round(outcome.routing_us, 2),
        "placement_us": round(outcome.placement_us, 2),
        "load_us": round(outcome.load_us, 2),
        "ratio": round(outcome.decision_us / first.decision_us, 3),
        "watching": round(outcome.watching, 5),
        "utilisation": round(outcome.utilisation, 4),
        "utilisation_before": round(outcome.utilisation_before, 4),
        "wait_p50_s": round(outcome.waits_s[0], 6),
        "wait_p99_s": round(outcome.waits_s[1], 6),
        "wait_max_s": round(outcome.waits_s[2], 6),
        "makespan_s": round(outcome.makespan_s, 6),
        "seconds": round(outcome.seconds, 1),
    }


def _size(scenario: Scenario) -> dict[str, object]:
    return {
        "nodes": scenario.nodes,
        "groups": scenario.groups,
        "slots": scenario.nodes * scenario.slots,
        "jobs": scenario.jobs,
        "seed": scenario.seed,
    }


def _print(done: list[ScenarioOutcome]) -> None:
    costs = new_table(
        "CPU time of a job's decisions, without I/O, in microseconds",
        (),
        ("nodes", "jobs", "decisions/s", "routing", "placement", "load", "together", "ratio"),
    )
    waits = new_table(
        "Slots and waiting times",
        (),
        ("nodes", "groups", "slots", "used", "in all", "wait p50", "p99", "longest", "ends"),
    )
    for each in done:
        size = each.scenario
        costs.add_row(
            f"{size.nodes:,}",
            f"{size.jobs:,}",
            f"{each.decisions_per_s:,.0f}",
            *(f"{us:.1f}" for us in (each.routing_us, each.placement_us, each.load_us, each.decision_us)),
            f"{each.decision_us / done[0].decision_us:.2f}",
        )
        waits.add_row(
            *(f"{count:,}" for count in (size.nodes, size.groups, size.nodes * size.slots)),
            f"{each.utilisation_before:.1%}",
            f"{each.utilisation:.1%}",
            *(_seconds(wait_s) for wait_s in each.waits_s),
            _seconds(each.makespan_s),
        )
    print_table(costs)
    print_table(waits)
    busiest = max(each.watching for each in done)
    print_out(
        "routing: parents choose groups. placement: leaders choose nodes and process reports. load: leaders send their "
        "load to parents. ratio: together, compared with the first row. used: part of the slots' time in use until the "
        "last job starts; in all: until the last job ends. wait: 50 %, 99 % and all of the jobs start within it. "
        "Between arrivals leaders run one after the other, so each has the processor's cache to itself, as in its own "
        f"process. Polling idle nodes takes at most {busiest:.2%} of a leader's core."
    )


def _seconds(seconds: float) -> str:
    return words_of(seconds) if seconds >= 600 else f"{seconds:.3g}s"


def _print_tried(tried: NodeCountResult) -> None:
    verdict = "too few" if tried.ends_s is None else f"enough, after {_seconds(tried.ends_s)}"
    print_note(f"{tried.nodes} nodes: {verdict}")


def _print_plan(made: Plan) -> None:
    assert made.found.ends_s is not None
    if made.fewer is None:
        fewer = "one node fewer has too few slots even for a perfect placement"
    else:
        fewer = f"with one node fewer {made.fewer.ended:,} had ended by the deadline"
    print_out(
        f"{made.scenario.nodes:,} nodes in {made.scenario.groups:,} groups, {made.slots:,} slots: "
        f"{made.wanted:,} of {made.scenario.jobs:,} jobs end within {_seconds(made.found.ends_s)} "
        f"(deadline {_seconds(made.deadline_s)}); {fewer}"
    )


def _plan_summary(made: Plan) -> dict[str, object]:
    return {
        **_size(made.scenario),
        "deadline_s": made.deadline_s,
        "wanted": made.wanted,
        "ends_s": made.found.ends_s,
        "fewer": None if made.fewer is None else asdict(made.fewer),
    }
