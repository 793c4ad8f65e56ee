"""`raygrid bench`: what this grid adds to this pricer, measured and said in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from raygrid.cli.grid import INTERRUPTED, client_of, complain, err, out

if TYPE_CHECKING:
    from raygrid.trial import Trial, TrialVerdict

_SHOWN = 5


def bench(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="INPUT", exists=True, dir_okay=False, help="The input of every job.")],
    *,
    pricer: Annotated[str | None, typer.Option(help="Pricer to use; by default the grid's.")] = None,
    arg: Annotated[list[str] | None, typer.Option(help="Argument for the pricer. Repeatable.")] = None,
    data: Annotated[list[str] | None, typer.Option(help="Name of shared data that the jobs read. Repeatable.")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="How many jobs; by default as many as take about half a minute, at most 2,000."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Run one input many times on the grid, and report what the grid adds to the pricer and where the time goes.

    The jobs have ids of their own, and are like any others; those that have not ended when this is interrupted are
    cancelled. Exits with 1 if one of them failed.
    """
    from raygrid.trial import run_trial, verdict  # noqa: PLC0415 - only this command needs it

    client = client_of(context)
    try:
        with _progress(show=not as_json) as (bar, row):
            trial = run_trial(
                client,
                file,
                jobs,
                progress=lambda done, total: bar.update(row, completed=done, total=total),
                pricer=pricer,
                args=arg or (),
                data=data or (),
            )
    except KeyboardInterrupt:
        complain("interrupted; the jobs that had not ended are cancelled")
        raise typer.Exit(INTERRUPTED) from None
    said = verdict(trial)
    if as_json:
        typer.echo(json.dumps(_as_json(trial, said)))
    else:
        _show(said)
    for failure in trial.failures[:_SHOWN]:
        complain(failure)
    raise typer.Exit(1 if trial.failures else 0)


@contextmanager
def _progress(*, show: bool) -> Iterator[tuple[Progress, TaskID]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = err()
    with Progress(*columns, console=console, disable=not (show and console.is_terminal), transient=True) as bar:
        yield bar, bar.add_task("one job alone, then a batch", total=None)


def _show(said: TrialVerdict) -> None:
    for sentence in said.found:
        out().print(sentence, highlight=False, markup=False)
    for sentence in said.advice:
        out().print(f"- {sentence}", highlight=False, markup=False)


def _as_json(trial: Trial, said: TrialVerdict) -> dict[str, object]:
    return {**asdict(trial), "adds_s": said.adds_s, "used": said.used, "found": said.found, "advice": said.advice}
