"""`raygrid result` and `raygrid cancel`: what to do with jobs that were submitted before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.grid import client_of, out


def result(
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="The job's id.")],
    *,
    out_dir: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Unpack the result into this directory.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-o", dir_okay=False, help="Write the result's ZIP to this file.")
    ] = None,
    even_if_failed: Annotated[bool, typer.Option("--even-if-failed", help="Also what a failed job left.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the job to end.")] = 0.0,
) -> None:
    """Fetch a job's result; prints its stdout unless --out or -o says where it goes."""
    if out_dir is not None and file is not None:
        raise typer.BadParameter("give --out or -o, not both")
    attached = client_of(context).job(job)
    if file is not None:
        attached.download(file, wait, even_if_failed=even_if_failed)
        return
    fetched = attached.result(wait, even_if_failed=even_if_failed)
    if out_dir is None:
        typer.echo(fetched.stdout, nl=False)
    else:
        fetched.extract(out_dir)


def cancel(
    context: typer.Context,
    jobs: Annotated[list[str] | None, typer.Argument(metavar="JOB...", help="Ids of jobs.")] = None,
    batch: Annotated[str | None, typer.Option(help="Cancel all jobs of this batch.")] = None,
) -> None:
    """Cancel jobs; one that has ended stays as it is."""
    if not jobs and batch is None:
        raise typer.BadParameter("name the jobs, or a batch with --batch")
    client = client_of(context)
    for job_id in jobs or ():
        client.job(job_id).cancel()
        out().print(f"cancelling job {job_id}", highlight=False, markup=False)
    if batch is not None:
        count = client.cancel_batch(batch)
        out().print(f"cancelling {count} jobs of batch {batch}", highlight=False, markup=False)
