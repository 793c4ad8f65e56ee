"""What `raygrid submit` and `raygrid result` do with jobs that have ended, and what they say about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath

import typer

from raygrid.cli.grid import complain, err, print_tail, print_what_is_left
from raygrid.client import Job, Result
from raygrid.client.earlier import remove_earlier
from raygrid.errors import JobCancelledError, JobFailedError, RaygridError


@dataclass(frozen=True, slots=True)
class EndedJob:
    """One line of the account: `state` is a job state, or `refused`, or `expired`."""

    path: Path | None
    job_id: str
    state: str
    reason: str | None = None
    message: str = ""
    stderr_tail: str = ""
    reused_from: str | None = None
    folder: Path | None = None
    has_result: bool = False


class NameBy(StrEnum):
    """What the directories of results are named after."""

    INPUT = "input"
    JOB = "job"


NAME_BY = typer.Option(
    "--name-by",
    help="Name the directories after the inputs, without suffix, or after the job ids; these are also taken where two "
    "inputs of the batch share a name.",
)


def folder_names(inputs: Mapping[str, str | None], name_by: NameBy) -> tuple[NameBy, dict[str, str]]:
    """Name the directory of each job's result; gives what they are named after, and the names by job id.

    All of them are named in one way, so that no job's id can be taken for the name of another one's input.

    Args:
        inputs: job id to what its input is called, where that is known.
        name_by: what is wished; inputs that share a name are told apart by their job ids in any case.
    """
    stems = {job_id: PurePath(name or "").stem for job_id, name in inputs.items()}
    alike = len({stem.casefold() for stem in stems.values()}) < len(stems) or {"", ".", ".."} & {*stems.values()}
    if name_by is NameBy.JOB or alike:
        return NameBy.JOB, {job_id: job_id for job_id in inputs}
    return NameBy.INPUT, stems


def collect(job: Job, path: Path | None, into: Path | None, *, show: bool) -> EndedJob:
    """Unpack or print what an ended job left, and give its memory back.

    Args:
        job: the job; its ending is known.
        path: its input, where it is known.
        into: directory to unpack into, if any; a failed job's files are unpacked as well.
        show: whether to print its stdout.
    """
    ending = job.ending
    if ending is None:
        raise AssertionError("only jobs that have ended are collected")
    if ending.result is not None:
        _deliver(ending.result, into, show=show and ending.error is None)
    elif into is not None and isinstance(ending.error, JobFailedError):
        remove_earlier(into, whole=True)  # what lies there is of another job, which may have succeeded
    reused_from = ending.result.reused_from if ending.result is not None else None
    folder = into if ending.result is not None else None
    job.release()
    error = ending.error
    if error is None:
        return EndedJob(path, job.job_id, "done", reused_from=reused_from, folder=folder)
    if isinstance(error, JobFailedError):
        tail = error.stderr_tail or ""
        return EndedJob(
            path, job.job_id, "failed", error.reason, error.message, tail, folder=folder, has_result=error.has_result
        )
    return EndedJob(path, job.job_id, _state_of(error), None, str(error))


def _deliver(result: Result, into: Path | None, *, show: bool) -> None:
    if into is not None:
        result.extract(into)
    elif show:
        typer.echo(result.stdout_bytes, nl=False)  # as the pricer wrote it: any encoding, any line ends, or data


def _state_of(error: RaygridError) -> str:
    if isinstance(error, JobCancelledError):
        return "cancelled"
    return "expired" if type(error).__name__ == "ResultExpiredError" else "refused"


def print_ended(ended: Sequence[EndedJob]) -> None:
    """Print a line for each job: its id, how it ended, its input, and where its files are, with tabs between."""
    for job in ended:
        typer.echo("\t".join((job.job_id, job.state, str(job.path or ""), str(job.folder or ""))).rstrip())


def print_failures(ended: Sequence[EndedJob]) -> None:
    """Say for each job without a result: which file, which job, why, and the end of its stderr."""
    for job in ended:
        if job.state == "done":
            continue
        complain(f"{job.path}: {_account(job)}" if job.path else _account(job))
        print_tail(job.stderr_tail)


def _account(job: EndedJob) -> str:
    """One sentence of it, whether or not the grid's message begins with the job already."""
    message = job.message.removeprefix(f"job {job.job_id} failed: ")
    if message.startswith(f"job {job.job_id} "):
        return message
    why = f"{job.state} ({job.reason})" if job.reason else job.state
    return f"job {job.job_id} {why}" if message == why else f"job {job.job_id} {why}: {message}"


def print_summary(batch_id: str, ended: Sequence[EndedJob], out_dir: Path | None, named: NameBy) -> None:
    """Print the last lines: how many jobs ended how, and where the results are."""
    counts = Counter(job.state for job in ended)
    console = err()
    said = ", ".join(f"{count:,} {state}" for state, count in counts.most_common())
    console.print(f"batch {batch_id}: {said or 'no job has ended'}", highlight=False, markup=False)
    if reused := sum(job.reused_from is not None for job in ended):
        console.print(f"{reused:,} did not run: their results are those of equal jobs that ran before", highlight=False)
    if out_dir is None and (failed := [job for job in ended if job.has_result and job.state == "failed"]):
        print_what_is_left(failed[0].job_id if len(failed) == 1 else "JOB")
    if out_dir is not None and counts.keys() & {"done", "failed"}:
        after = "inputs" if named is NameBy.INPUT else "job ids"
        console.print(f"results are below {out_dir}, named after the {after}", highlight=False, markup=False)
