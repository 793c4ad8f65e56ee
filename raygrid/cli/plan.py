"""`raygrid plan`: what deciding costs in a grid of some size, and how large one has to be for a deadline."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from raygrid.cli.duration import words_of
from raygrid.cli.grid import err, out, print_table

if TYPE_CHECKING:
    from raygrid.planner.plan import NodeCountResult, Plan
    from raygrid.planner.report import Scenario, ScenarioOutcome


def plan(
    *,
    nodes: Annotated[int, typer.Option(min=1, help="Nodes; with --deadline at most this many.")] = 10_000,
    groups: Annotated[int | None, typer.Option(min=1, help="Groups; by default one for 50 nodes.")] = None,
    slots: Annotated[int, typer.Option(min=1, help="Slots of each node.")] = 8,
    jobs: Annotated[int, typer.Option(min=1, help="How many jobs arrive.")] = 1_000_000,
    run_time: Annotated[
        str,
        typer.Option(
            metavar="TIMES",
            help="How long jobs run: `lognormal:MEDIAN:SIGMA`, `constant:100ms`, or `file:PATH` with observed seconds, "
            "one a line.",
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
        str | None, typer.Option(metavar="DURATION", help="Find how many nodes are enough for the jobs to end by then.")
    ] = None,
    share: Annotated[float, typer.Option(help="With --deadline: this part of the jobs has to end by then.")] = 1.0,
    sweep: Annotated[bool, typer.Option("--sweep", help="10, 100, 1,000 and 10,000 nodes, up to --nodes.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run a grid of any size on a virtual clock, with the real code that routes and places.

    Prints what a decision costs, how well slots are used, and how long jobs wait. With --deadline: how many nodes are
    enough. Failures are not simulated.
    """
    from raygrid.core.group.placement import POLICIES  # noqa: PLC0415 - other commands do not need it
    from raygrid.planner import report as simulation  # noqa: PLC0415
    from raygrid.planner.load import Arrivals, RunTimes, duration_s  # noqa: PLC0415
    from raygrid.planner.plan import plan as fewest_nodes  # noqa: PLC0415

    if placement not in POLICIES:
        raise typer.BadParameter(f"there is no placement policy {placement!r}; known are {', '.join(POLICIES)}")
    if sweep and deadline is not None:
        raise typer.BadParameter("--sweep compares sizes, --deadline looks for one; give one of them")
    if not 0 < share <= 1:
        raise typer.BadParameter(f"--share is a part of all jobs, above 0 and at most 1; {share:g} is none")
    if share < 1 and deadline is None:
        raise typer.BadParameter("--share says how many jobs have to end by the --deadline, and none is given")
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
        show = (lambda each: None) if as_json else _say_tried
        made = fewest_nodes(scenario, duration_s(deadline), share, tried=show)
        typer.echo(json.dumps(_plan_summary(made))) if as_json else _say_plan(made)
        return
    sizes = (*(size for size in simulation.SIZES if size < nodes), nodes) if sweep else (nodes,)
    done = []
    for outcome in simulation.sweep(scenario, sizes):
        done.append(outcome)
        if sweep and not as_json:
            err().print(f"{outcome.scenario.nodes} nodes: {outcome.seconds:.0f} s", highlight=False, markup=False)
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
    costs = Table(title="CPU time of the deciding code alone, for each job, in microseconds", title_justify="left")
    for column in ("nodes", "jobs", "decisions/s", "routing", "placement", "load", "together", "ratio"):
        costs.add_column(column, justify="right")
    waits = Table(title="What became of the jobs", title_justify="left")
    for column in ("nodes", "groups", "slots", "used", "in all", "wait p50", "p99", "longest", "ends"):
        waits.add_column(column, justify="right")
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
    out().print(
        "routing: a parent chooses groups; placement: leaders choose nodes and hear what comes of it; load: leaders "
        "tell parents how full they are. ratio: against the first row. used: of the slots' time until the last start, "
        "then in all. wait: half of the jobs, 99 % of them and every one start within that. Between arrivals leaders "
        "take turns, each with the processor's cache to itself as in a process of its own. Hearing nodes with nothing "
        f"to say takes {busiest:.2%} of a leader's core at most.",
        highlight=False,
        markup=False,
    )


def _seconds(seconds: float) -> str:
    return words_of(seconds) if seconds >= 600 else f"{seconds:.3g}s"


def _say_tried(tried: NodeCountResult) -> None:
    verdict = "too few" if tried.ends_s is None else f"enough, after {_seconds(tried.ends_s)}"
    err().print(f"{tried.nodes} nodes: {verdict}", highlight=False, markup=False)


def _say_plan(made: Plan) -> None:
    assert made.found.ends_s is not None
    if made.fewer is None:
        fewer = "one node fewer could not do the work, however well it was spread"
    else:
        fewer = f"with one node fewer {made.fewer.ended:,} had ended by the deadline"
    out().print(
        f"{made.scenario.nodes:,} nodes in {made.scenario.groups:,} groups, {made.slots:,} slots: "
        f"{made.wanted:,} of {made.scenario.jobs:,} jobs end within {_seconds(made.found.ends_s)} "
        f"(deadline {_seconds(made.deadline_s)}); {fewer}",
        highlight=False,
        markup=False,
    )


def _plan_summary(made: Plan) -> dict[str, object]:
    return {
        **_size(made.scenario),
        "deadline_s": made.deadline_s,
        "wanted": made.wanted,
        "ends_s": made.found.ends_s,
        "fewer": None if made.fewer is None else asdict(made.fewer),
    }
