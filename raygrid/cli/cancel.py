"""`raygrid cancel`: cancels jobs over HTTP, or in the job store of a grid on this machine that does not run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.grid import GridChoice, client_of, print_out
from raygrid.cli.local_grid import running, settings_of
from raygrid.cli.options import GridName, StartedWithFile
from raygrid.client import Client
from raygrid.errors import SettingsError
from raygrid.settings.model import GridSettings


def cancel(
    context: typer.Context,
    jobs: Annotated[list[str] | None, typer.Argument(metavar="JOB...", help="Ids of jobs.")] = None,
    batch: Annotated[str | None, typer.Option(help="Cancel all jobs of this batch.")] = None,
    name: GridName = None,
    config: StartedWithFile = None,
) -> None:
    """Cancel jobs; a job that has ended does not change.

    If the grid on this machine does not run, the jobs are cancelled in its job store.
    """
    if not jobs and batch is None:
        raise typer.BadParameter("name the jobs, or a batch with --batch")
    grid = _grid(context, name, config)
    if isinstance(grid, GridSettings):
        _cancel_offline(grid, jobs or (), batch)
        return
    for job_id in jobs or ():
        was = grid.job(job_id).cancel()
        print_out(_has_ended(job_id, was.value) if was.is_terminal else f"cancelling job {job_id}")
    if batch is not None:
        count = grid.cancel_batch(batch)
        print_out(f"cancelling {count} jobs of batch {batch}" if count else _all_have_ended(batch))


def _grid(context: typer.Context, name: str | None, config: Path | None) -> Client | GridSettings:
    """A client for the grid that the command line names, or its settings if it does not run on this machine.

    Raises:
        SettingsError: the command line names two grids.
    """
    choice: GridChoice = context.obj
    named = name is not None or config is not None
    if choice.url is not None and named:
        raise SettingsError("--url names one grid, --name and --config another; give either")
    if choice.url is not None or (os.environ.get("RAYGRID_URL") and not named):
        return client_of(context)
    settings = settings_of({}, config, name=name)
    grid = running(settings)
    if grid is None:
        return settings
    return GridChoice(grid.url, choice.api_key or os.environ.get("RAYGRID_API_KEY") or grid.api_key).client()


def _cancel_offline(settings: GridSettings, job_ids: Sequence[str], batch_id: str | None) -> None:
    from raygrid.local.offline import cancel_offline  # noqa: PLC0415 - imports the job store

    cancelled = cancel_offline(settings, job_ids, batch_id)
    for job in cancelled:
        if job.ended is not None:
            print_out(_has_ended(job.job_id, job.ended))
        elif job.at_start:
            print_out(f"job {job.job_id} is cancelled when the grid starts, before it runs")
        else:
            print_out(f"job {job.job_id} is cancelled (grid {settings.name} does not run)")
    if batch_id is not None and not cancelled:
        print_out(_all_have_ended(batch_id))


def _has_ended(job_id: str, state: str) -> str:
    return f"job {job_id} has ended already: it is {state}"


def _all_have_ended(batch_id: str) -> str:
    return f"all jobs of batch {batch_id} have ended already"
