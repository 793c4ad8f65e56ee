"""`raygrid result` and `raygrid cancel`: what to do with jobs that were submitted before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from raygrid.cli.ended import collect, print_ended, print_failures, print_summary
from raygrid.cli.grid import client_of, command_of, err, out
from raygrid.client import Client, Job

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
_POLL_S = 0.5


def result(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(help="The job's id.")] = None,
    *,
    batch: Annotated[
        str | None, typer.Option(help="Fetch what has ended of this batch, each job into a directory of its id.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Unpack the result into this directory.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-o", help="Write the result's ZIP to this file; for a batch: the same as --out."),
    ] = None,
    even_if_failed: Annotated[bool, typer.Option("--even-if-failed", help="Also what a failed job left.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the end.")] = 0.0,
) -> None:
    """Fetch the result of a job or of a batch.

    That of a job is printed, its stdout, unless --out or -o says where it goes. For a batch a line tells of each job
    how it ended and what its input was called, and the exit code is 0 if all jobs are done.
    """
    if out_dir is not None and file is not None:
        raise typer.BadParameter("give --out or -o, not both")
    if (job is None) == (batch is None):
        raise typer.BadParameter("name a job, or a batch with --batch")
    if batch is not None:
        into = out_dir or file
        if into is None:
            raise typer.BadParameter("say with -o which directory the results of the batch go to")
        raise typer.Exit(_fetch_batch(context, batch, into, wait))
    assert job is not None
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
        was = client.job(job_id).cancel()
        said = f"job {job_id} has ended already: it is {was.value}" if was.is_terminal else f"cancelling job {job_id}"
        out().print(said, highlight=False, markup=False)
    if batch is not None:
        count = client.cancel_batch(batch)
        said = f"cancelling {count} jobs of batch {batch}" if count else f"all jobs of batch {batch} have ended already"
        out().print(said, highlight=False, markup=False)


def _fetch_batch(context: typer.Context, batch_id: str, into: Path, wait_s: float) -> int:
    """Unpack whatever has ended of a batch; gives the exit code."""
    client = client_of(context)
    until = time.monotonic() + wait_s
    while not (status := client.batch_status(batch_id)).finished and (left_s := until - time.monotonic()) > 0:
        time.sleep(min(_POLL_S, left_s))
    ended = [collect(job, None, into / job.job_id, show=False) for job in _ended(client, batch_id)]
    print_ended(ended)
    print_failures(ended)
    print_summary(batch_id, ended, into)
    if missing := status.total - len(ended):
        err().print(
            f"{missing} jobs have not ended yet; fetch them later with\n"
            f"  {command_of(context)} result --batch {batch_id} -o {into} --wait 60",
            highlight=False,
            markup=False,
        )
    return 0 if not missing and all(job.state == "done" for job in ended) else 1


def _ended(client: Client, batch_id: str) -> Iterator[Job]:
    batch = client.batch(batch_id, ended_only=True)
    console = err()
    with Progress(*COLUMNS, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from progress.track(batch.as_completed(), total=len(batch), description=f"batch {batch_id}")
