"""`raygrid result` and `raygrid cancel`: what to do with jobs that were submitted before."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from raygrid.cli.ended import NAME_BY, NameBy, collect, folder_names, print_ended, print_failures, print_summary
from raygrid.cli.grid import client_of, command_of, err, out
from raygrid.cli.offline import client_to_cancel
from raygrid.client import BatchJobs, Job

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
_POLL_S = 0.5


def result(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(help="The job's id.")] = None,
    *,
    batch: Annotated[
        str | None, typer.Option(help="Fetch what has ended of this batch, each job into a directory of its own.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Unpack the result into this directory.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-o", help="Write the result's ZIP to this file; for a batch: the same as --out."),
    ] = None,
    name_by: Annotated[NameBy, NAME_BY] = NameBy.INPUT,
    even_if_failed: Annotated[
        bool, typer.Option("--even-if-failed", help="Also fetch what a failed job left.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the end.")] = 0.0,
) -> None:
    """Fetch the result of a job or of a batch.

    For a job, its stdout is printed, unless --out or -o names a place for the result. For a batch, one line per job
    shows its id, its state, its input and the directory of its files, separated by tabs; the exit code is 0 if all jobs
    are done.
    """
    if out_dir is not None and file is not None:
        raise typer.BadParameter("give --out or -o, not both")
    if (job is None) == (batch is None):
        raise typer.BadParameter("name a job, or a batch with --batch")
    if batch is not None:
        into = out_dir or file
        if into is None:
            raise typer.BadParameter("say with -o which directory the results of the batch go to")
        raise typer.Exit(_fetch_batch(context, batch, into, name_by, wait))
    assert job is not None
    attached = client_of(context).job(job)
    if file is not None:
        attached.download(file, wait, even_if_failed=even_if_failed)
        return
    fetched = attached.result(wait, even_if_failed=even_if_failed)
    if out_dir is None:
        typer.echo(fetched.stdout_bytes, nl=False)  # byte for byte: `> file` must hold what the pricer wrote
    else:
        fetched.extract(out_dir)


def cancel(
    context: typer.Context,
    jobs: Annotated[list[str] | None, typer.Argument(metavar="JOB...", help="Ids of jobs.")] = None,
    batch: Annotated[str | None, typer.Option(help="Cancel all jobs of this batch.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the grid on this machine, if it is not `default`.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Settings file that the grid on this machine was started with.")
    ] = None,
) -> None:
    """Cancel jobs; one that has ended stays as it is.

    A grid on this machine need not run: the jobs are then cancelled in its job store.
    """
    if not jobs and batch is None:
        raise typer.BadParameter("name the jobs, or a batch with --batch")
    client = client_to_cancel(context, jobs or (), batch, name, config)
    if client is None:
        return
    for job_id in jobs or ():
        was = client.job(job_id).cancel()
        said = f"job {job_id} has ended already: it is {was.value}" if was.is_terminal else f"cancelling job {job_id}"
        out().print(said, highlight=False, markup=False)
    if batch is not None:
        count = client.cancel_batch(batch)
        said = f"cancelling {count} jobs of batch {batch}" if count else f"all jobs of batch {batch} have ended already"
        out().print(said, highlight=False, markup=False)


def _fetch_batch(context: typer.Context, batch_id: str, into: Path, name_by: NameBy, wait_s: float) -> int:
    """Unpack whatever has ended of a batch; gives the exit code."""
    client = client_of(context)
    until = time.monotonic() + wait_s
    while not client.batch_status(batch_id).finished and (left_s := until - time.monotonic()) > 0:
        time.sleep(min(_POLL_S, left_s))
    batch = client.batch(batch_id, ended_only=True)
    # Of all jobs, ended or not: a directory is called the same whenever one comes for it.
    inputs = {job.job_id: job.input_name for job in client.jobs(batch=batch_id)}
    named, folder_of = folder_names(inputs, name_by)
    ended = [
        collect(job, Path(name) if (name := inputs[job.job_id]) else None, into / folder_of[job.job_id], show=False)
        for job in _in_sight(batch)
    ]
    submitted = {job_id: place for place, job_id in enumerate(inputs)}
    ended.sort(key=lambda job: submitted[job.job_id])
    print_ended(ended)
    print_failures(ended)
    print_summary(batch_id, ended, into, named)
    if missing := len(inputs) - len(ended):
        again = "" if name_by is NameBy.INPUT else f" --name-by {name_by}"
        err().print(
            f"{missing} jobs have not ended yet; fetch them later with\n"
            f"  {command_of(context)} result --batch {batch_id} -o {into}{again} --wait 60",
            highlight=False,
            markup=False,
        )
    return 0 if not missing and all(job.state == "done" for job in ended) else 1


def _in_sight(batch: BatchJobs) -> Iterator[Job]:
    """The jobs as they are read, with a bar on a terminal."""
    console = err()
    with Progress(*COLUMNS, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from progress.track(batch.as_completed(), total=len(batch), description=f"batch {batch.batch_id}")
