"""`make simulate`, or `python -m tests.simulation`: runs seeds until one violates an invariant."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from raygrid.cli.grid import err, out, print_error
from tests.simulation.mutants import MUTANTS, about
from tests.simulation.pool import run_seeds
from tests.simulation.run import Outcome

SHOW_EVERY = 100


def main(
    *,
    seeds: Annotated[int, typer.Option(min=1, help="How many runs, each from its own seed.")] = 200,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed; the others follow it.")] = 0,
    mutant: Annotated[
        str | None, typer.Option(metavar="NAME", help="Plant a bug, to see it found; `list` shows the names.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Run the grid's own code under seeded faults and check its invariants at every step.

    Calls are lost, late and doubled; parts crash, freeze and are cut off; disks fill and clocks step. Exits with 1 at
    the first seed that violates an invariant. The same seed makes the same steps, on any machine.
    """
    if mutant == "list":
        for name in MUTANTS:
            out().print(f"{name:24} {about(name)}", highlight=False, markup=False)
        return
    if mutant is not None and mutant not in MUTANTS:
        raise typer.BadParameter(f"there is no mutant {mutant!r}; known are {', '.join(MUTANTS)}")
    started, done = time.monotonic(), []
    violated: Outcome | None = None
    for outcome in run_seeds(first_seed, seeds, mutant=mutant):
        done.append(outcome)
        if outcome.violation is not None:
            violated = outcome
            break
        if not as_json and len(done) % SHOW_EVERY == 0:
            err().print(f"{len(done)} of {seeds} seeds, no violation", highlight=False, markup=False)
    seconds = time.monotonic() - started
    if as_json:
        typer.echo(json.dumps(_summary(done, seconds)))
    elif violated is None:
        out().print(_sentence(done, seconds), highlight=False, markup=False)
    else:
        _explain(violated, mutant)
    if violated is not None:
        raise typer.Exit(1)


def _summary(done: list[Outcome], seconds: float) -> dict[str, object]:
    last = done[-1]
    return {
        "seeds": len(done),
        "first_seed": done[0].seed,
        "violation": None if last.violation is None else {"seed": last.seed, **asdict(last.violation)},
        "trace": list(last.trace),
        "jobs": sum(each.jobs for each in done),
        "runs": sum(each.runs for each in done),
        "faults": sum(each.faults for each in done),
        "terms": sum(each.terms for each in done),
        "calls": sum(each.calls for each in done),
        "virtual_s": round(sum(each.virtual_s for each in done), 1),
        "seconds": round(seconds, 1),
        "digest": hashlib.sha256("".join(each.digest for each in done).encode()).hexdigest(),
    }


def _sentence(done: list[Outcome], seconds: float) -> str:
    made = _summary(done, seconds)
    return (
        f"{made['seeds']} seeds, no violation: {made['jobs']} jobs, {made['runs']} runs, {made['faults']} faults, "
        f"{made['terms']} terms, {made['virtual_s']} s of virtual time in {made['seconds']} s; digest {made['digest']}"
    )


def _explain(violated: Outcome, mutant: str | None) -> None:
    assert violated.violation is not None
    for line in violated.trace:
        out().print(line, highlight=False, markup=False)
    print_error(f"seed {violated.seed} violates: {violated.violation.invariant}. {violated.violation.detail}")
    planted = f" MUTANT={mutant}" if mutant else ""
    print_error(f"replay it with: make simulate SEEDS=1 FIRST_SEED={violated.seed}{planted}")


if __name__ == "__main__":
    typer.run(main)
