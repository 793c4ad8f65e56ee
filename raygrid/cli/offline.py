"""`raygrid cancel` for a grid on this machine that does not run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import typer

from raygrid.cli.grid import GridChoice, client_of, print_out
from raygrid.cli.local_grid import running, settings_of
from raygrid.client import Client
from raygrid.errors import SettingsError


def client_to_cancel(
    context: typer.Context, job_ids: Sequence[str], batch_id: str | None, name: str | None, config: Path | None
) -> Client | None:
    """Make a client for the grid that the command line names; if that does not run, cancel the jobs and give None.

    Raises:
        SettingsError: the command line names two grids, or one that is not there.
    """
    choice: GridChoice = context.obj
    named = name is not None or config is not None
    if choice.url is not None and named:
        raise SettingsError("--url names one grid, --name and --config another; give either")
    if choice.url is not None or (os.environ.get("RAYGRID_URL") and not named):
        return client_of(context)
    settings = settings_of({}, config, name=name)
    grid = running(settings)
    if grid is not None:
        return GridChoice(grid.url, choice.api_key or os.environ.get("RAYGRID_API_KEY") or grid.api_key).client()
    from raygrid.local.offline import cancel_offline  # noqa: PLC0415 - imports the job store

    cancelled = cancel_offline(settings, job_ids, batch_id)
    for job in cancelled:
        if job.ended is not None:
            print_out(f"job {job.job_id} has ended already: it is {job.ended}")
        elif job.at_start:
            print_out(f"job {job.job_id} is cancelled when the grid starts, before it runs")
        else:
            print_out(f"job {job.job_id} is cancelled (grid {settings.name} does not run)")
    if batch_id is not None and not cancelled:
        print_out(f"all jobs of batch {batch_id} have ended already")
    return None
