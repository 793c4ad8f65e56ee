"""How `raygrid submit` and `raygrid result` deliver the results of ended jobs, and how they report failures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Annotated

import typer

from raygrid.cli.grid import (
    print_bytes,
    print_error,
    print_how_to_fetch,
    print_line,
    print_note,
    print_stderr_tail,
)
from raygrid.client import Job
from raygrid.client.earlier import remove_earlier
from raygrid.errors import JobCancelledError, JobFailedError, RaygridError, ResultExpiredError
from raygrid.system.filenames import problem_here


@dataclass(frozen=True, slots=True)
class EndedJob:
    """A job that has ended; `state` is a terminal job state, or `refused` or `expired`."""

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
    """The choice of names for the directories of results."""

    INPUT = "input"
    JOB = "job"


NameByOption = Annotated[
    NameBy,
    typer.Option(
        "--name-by",
        help="Name the directories after the inputs, without suffix, or after the job ids. Job ids are also used if "
        "two inputs of the batch share a name.",
    ),
]


def folder_names(inputs: Mapping[str, str | None], name_by: NameBy) -> tuple[NameBy, dict[str, str]]:
    """Name the directory of each job's result; gives what they are named after, and the names by job id.

    All are named in the same way, so that no job id can be mistaken for the name of another job's input.

    Args:
        inputs: job id to the name of its input, if known.
        name_by: the user's choice; if two inputs share a name, or a directory cannot have the name of an input, the
            directories are named after job ids.
    """
    stems = {job_id: PurePath(name or "").stem for job_id, name in inputs.items()}
    alike = len({stem.casefold() for stem in stems.values()}) < len(stems)
    impossible = any(stem in ("", ".", "..") or problem_here(stem) for stem in stems.values())
    if name_by is NameBy.JOB or alike or impossible:
        return NameBy.JOB, {job_id: job_id for job_id in inputs}
    return NameBy.INPUT, stems


def deliver(job: Job, path: Path | None, into: Path | None, *, print_stdout: bool) -> EndedJob:
    """Unpack or print the result of an ended job, and free its memory.

    Args:
        job: the job; its ending is known.
        path: its input, if known.
        into: directory to unpack into, if any; the files of a failed job are unpacked, too.
        print_stdout: whether to print the stdout of a job that is done.
    """
    ending = job.ending
    if ending is None:
        raise AssertionError("only jobs that have ended are delivered")
    if ending.result is not None:
        if into is not None:
            ending.result.extract(into)
        elif print_stdout and ending.error is None:
            print_bytes(ending.result.stdout_bytes)
    elif into is not None and isinstance(ending.error, JobFailedError):
        remove_earlier(into, whole=True)  # a result there is that of another job, which may have succeeded
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


def _state_of(error: RaygridError) -> str:
    if isinstance(error, JobCancelledError):
        return "cancelled"
    return "expired" if type(error) is ResultExpiredError else "refused"


def print_ended(ended: Sequence[EndedJob]) -> None:
    """Print a line for each job: its id, state, input and directory, separated by tabs."""
    for job in ended:
        print_line("\t".join((job.job_id, job.state, str(job.path or ""), str(job.folder or ""))).rstrip())


def print_failures(ended: Sequence[EndedJob]) -> None:
    """Print for each job that is not done its input, its id, the reason, and the last lines of its stderr."""
    for job in ended:
        if job.state == "done":
            continue
        print_error(f"{job.path}: {_sentence(job)}" if job.path else _sentence(job))
        print_stderr_tail(job.stderr_tail)


def _sentence(job: EndedJob) -> str:
    """How the job ended, in one sentence that names the job once: the grid's message may already name it."""
    message = job.message.removeprefix(f"job {job.job_id} failed: ")
    if message.startswith(f"job {job.job_id} "):
        return message
    why = f"{job.state} ({job.reason})" if job.reason else job.state
    return f"job {job.job_id} {why}" if message == why else f"job {job.job_id} {why}: {message}"


def print_summary(batch_id: str, ended: Sequence[EndedJob], out_dir: Path | None, named: NameBy) -> None:
    """Print how many jobs ended in each state, and where the results are."""
    counts = Counter(job.state for job in ended)
    states = ", ".join(f"{count:,} {state}" for state, count in counts.most_common())
    print_note(f"batch {batch_id}: {states or 'no job has ended'}")
    if reused := sum(job.reused_from is not None for job in ended):
        print_note(f"{reused:,} did not run: their results are those of equal jobs that ran before")
    if out_dir is None and (failed := [job for job in ended if job.has_result and job.state == "failed"]):
        print_how_to_fetch(failed[0].job_id if len(failed) == 1 else "JOB")
    if out_dir is not None and counts.keys() & {"done", "failed"}:
        after = "inputs" if named is NameBy.INPUT else "job ids"
        print_note(f"results are below {out_dir}, named after the {after}")
