"""`raygrid result`: fetches the results of jobs that were submitted before."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.ended import NameBy, NameByOption, deliver, folder_names, print_ended, print_failures, print_summary
from raygrid.cli.grid import client_of, command_of, print_bytes, print_note, progress_bar

_POLL_S = 0.5


def result(
    context: typer.Context,
    job: Annotated[str | None, typer.Argument(help="Id of the job.")] = None,
    *,
    batch: Annotated[
        str | None,
        typer.Option(help="Fetch the results of the ended jobs of this batch, each into a directory of its own."),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", file_okay=False, help="Unpack the result into this directory.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-o", help="Write the ZIP of the result to this file; with --batch the same as --out."),
    ] = None,
    name_by: NameByOption = NameBy.INPUT,
    even_if_failed: Annotated[
        bool, typer.Option("--even-if-failed", help="Fetch the stdout, stderr and files of a failed job, too.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the end of the job or batch.")] = 0.0,
) -> None:
    """Fetch the result of a job or of a batch.

    For a job, its stdout is printed unless --out or -o names a place for the result. For a batch, one line per job
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
        print_bytes(fetched.stdout_bytes)
    else:
        fetched.extract(out_dir)


def _fetch_batch(context: typer.Context, batch_id: str, into: Path, name_by: NameBy, wait_s: float) -> int:
    """Unpack the results of the jobs of a batch that have ended; gives the exit code."""
    client = client_of(context)
    until = time.monotonic() + wait_s
    while not client.batch_status(batch_id).finished and (left_s := until - time.monotonic()) > 0:
        time.sleep(min(_POLL_S, left_s))
    batch = client.batch(batch_id, ended_only=True)
    # The inputs of all jobs, ended or not: a job's directory has the same name whenever the result is fetched.
    inputs = {job.job_id: job.input_name for job in client.jobs(batch=batch_id)}
    named, folder_of = folder_names(inputs, name_by)
    ended = []
    with progress_bar(f"batch {batch.batch_id}", len(batch)) as update:
        for job in batch.as_completed():
            path = Path(name) if (name := inputs[job.job_id]) else None
            ended.append(deliver(job, path, into / folder_of[job.job_id], print_stdout=False))
            update(advance=1)
    submitted = {job_id: place for place, job_id in enumerate(inputs)}
    ended.sort(key=lambda job: submitted[job.job_id])
    print_ended(ended)
    print_failures(ended)
    print_summary(batch_id, ended, into, named)
    if missing := len(inputs) - len(ended):
        again = "" if name_by is NameBy.INPUT else f" --name-by {name_by}"
        print_note(
            f"{missing} jobs have not ended yet; fetch their results later with\n"
            f"  {command_of(context)} result --batch {batch_id} -o {into}{again} --wait 60"
        )
    return 0 if not missing and all(job.state == "done" for job in ended) else 1
