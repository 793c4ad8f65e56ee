"""`raygrid bench`: measure what this grid adds to this pricer, and report it in sentences."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raygrid.cli.grid import INTERRUPTED, client_of, print_error, print_out, progress_bar
from raygrid.cli.options import AsJson, DataNames, PricerArgs, PricerName

if TYPE_CHECKING:
    from raygrid.trial import Trial, TrialVerdict

_SHOWN_FAILURES = 5


def bench(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="INPUT", exists=True, dir_okay=False, help="The input of every job.")],
    *,
    pricer: PricerName = None,
    arg: PricerArgs = None,
    data: DataNames = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of jobs; by default as many as take about half a minute, at most 2,000."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run one input many times on the grid, and report what the grid adds to the pricer and where the time goes.

    The jobs are ordinary jobs with new ids. If you interrupt the command, the jobs that have not ended are cancelled.
    The exit code is 1 if a job failed.
    """
    from raygrid.trial import run_trial, verdict  # noqa: PLC0415 - only this command needs it

    client = client_of(context)
    try:
        with progress_bar("one job alone, then a batch", shown=not as_json) as update:
            trial = run_trial(
                client,
                file,
                jobs,
                progress=lambda done, total: update(completed=done, total=total),
                pricer=pricer,
                args=arg or (),
                data=data or (),
            )
    except KeyboardInterrupt:
        print_error("interrupted; the jobs that had not ended are cancelled")
        raise typer.Exit(INTERRUPTED) from None
    judged = verdict(trial)
    if as_json:
        typer.echo(json.dumps(_as_json(trial, judged)))
    else:
        for sentence in (*judged.found, *(f"- {each}" for each in judged.advice)):
            print_out(sentence)
    for failure in trial.failures[:_SHOWN_FAILURES]:
        print_error(failure)
    raise typer.Exit(1 if trial.failures else 0)


def _as_json(trial: Trial, judged: TrialVerdict) -> dict[str, object]:
    values = {"adds_s": judged.adds_s, "used": judged.used, "found": judged.found, "advice": judged.advice}
    return {**asdict(trial), **values}
