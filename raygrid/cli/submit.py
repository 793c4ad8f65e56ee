"""`raygrid submit`: submit many files as one batch, take the results as jobs end, print a summary."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from raygrid.cli.ended import EndedJob, NameBy, NameByOption, deliver, folder_names, print_failures, print_summary
from raygrid.cli.grid import INTERRUPTED, client_of, command_of, print_error, print_line, print_note, progress_bar
from raygrid.cli.options import DataNames, PricerArgs, PricerName
from raygrid.client import BatchJobs
from raygrid.client.options import checked_id
from raygrid.errors import InvalidRequestError


def submit(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Inputs, one job each.")],
    *,
    pricer: PricerName = None,
    arg: PricerArgs = None,
    priority: Annotated[int, typer.Option(help="Jobs of a higher priority run first.")] = 0,
    affinity: Annotated[str | None, typer.Option(help="Jobs of one affinity go to the same group.")] = None,
    site: Annotated[
        str | None, typer.Option(help="Run at this site while it has free slots, else at the nearest that has.")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Wall-time limit of one attempt, seconds.")] = None,
    data: DataNames = None,
    job_id: Annotated[str | None, typer.Option(help="Id of the job; only with one file.")] = None,
    ids_from_names: Annotated[
        bool, typer.Option("--ids-from-names", help="Use the names of the files, without suffix, as job ids.")
    ] = False,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", file_okay=False, help="Unpack each result into a directory of its own below this one."),
    ] = None,
    name_by: NameByOption = NameBy.INPUT,
    batch_id: Annotated[
        str | None, typer.Option(help="Id of the batch, which may exist; by default a new one.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the results.")] = True,
) -> None:
    """Submit files and wait for their results; exit with 1 if a job failed."""
    batch = client_of(context).map(
        files,
        job_ids=_job_ids(files, job_id, ids_from_names),
        batch_id=batch_id,
        pricer=pricer,
        args=arg or (),
        priority=priority,
        affinity=affinity,
        site=site,
        timeout_s=timeout,
        data=data or (),
    )
    if not wait:
        _print_ids(batch, files)
    command = command_of(context)
    accepted = len(batch) - len(batch.refused)
    print_note(
        f"batch {batch.batch_id}: {accepted:,} {'job' if accepted == 1 else 'jobs'} submitted; come back to it with\n"
        f"  {command} status --batch {batch.batch_id}\n"
        f"  {command} result --batch {batch.batch_id} -o DIR"
    )
    if not wait:
        raise typer.Exit(1 if batch.refused else 0)
    try:
        ended, named = _wait(batch, files, out_dir, name_by)
    except KeyboardInterrupt:
        print_error(
            f"interrupted; the jobs of batch {batch.batch_id} go on.\n"
            f"  cancel them: {command} cancel --batch {batch.batch_id}\n"
            f"  their results: {command} result --batch {batch.batch_id} -o DIR --wait 60"
        )
        raise typer.Exit(INTERRUPTED) from None
    print_failures(ended)
    print_summary(batch.batch_id, ended, out_dir, named)
    raise typer.Exit(0 if all(job.state == "done" for job in ended) else 1)


def _job_ids(files: list[Path], job_id: str | None, from_names: bool) -> list[str] | None:
    if job_id is not None and len(files) != 1:
        raise typer.BadParameter("it fits one file; use --ids-from-names for many", param_hint="--job-id")
    if job_id is None and not from_names:
        return None
    ids = [path.stem for path in files] if job_id is None else [job_id]
    hint = "--ids-from-names" if job_id is None else "--job-id"
    twice = [value for value, count in Counter(ids).items() if count > 1]
    if twice:
        raise typer.BadParameter(f"two files are called {twice[0]}", param_hint=hint)
    try:
        return [checked_id(value) for value in ids]
    except InvalidRequestError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from None


def _print_ids(batch: BatchJobs, files: list[Path]) -> None:
    for path, job in zip(files, batch, strict=True):
        if job.job_id in batch.refused:
            print_error(f"{path}: job {job.job_id} refused: {batch.refused[job.job_id]}")
        else:
            print_line(f"{job.job_id}\t{path}")


def _wait(batch: BatchJobs, files: list[Path], out_dir: Path | None, name_by: NameBy) -> tuple[list[EndedJob], NameBy]:
    """Take each job as it ends: unpack its result, or print its stdout if it is the only one."""
    path_of = {job.job_id: path for job, path in zip(batch, files, strict=True)}
    named, folder_of = folder_names({job_id: path.name for job_id, path in path_of.items()}, name_by)
    ended = []
    with progress_bar(f"batch {batch.batch_id}", len(batch)) as update:
        for job in batch.as_completed():
            into = None if out_dir is None else out_dir / folder_of[job.job_id]
            print_stdout = out_dir is None and len(batch) == 1
            ended.append(deliver(job, path_of[job.job_id], into, print_stdout=print_stdout))
            update(advance=1)
    return ended, named
