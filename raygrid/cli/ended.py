"""What `raygrid submit` does with a job that has ended, and what it says about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from raygrid.cli.grid import complain, err, print_tail
from raygrid.client import Job, Result
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


def folder_names(files: Sequence[Path], job_ids: Sequence[str]) -> list[str]:
    """Name the result directories after the inputs where that tells them apart, else after the jobs."""
    stems = [path.stem for path in files]
    unique = len({stem.casefold() for stem in stems}) == len(stems) and not {"", ".", ".."} & set(stems)
    return stems if unique else list(job_ids)


def collect(job: Job, path: Path | None, into: Path | None, *, show: bool) -> EndedJob:
    """Unpack or print what an ended job left, and give its memory back.

    Args:
        job: the job; its ending is known.
        path: its input, where it is known; else the result says what that was called.
        into: directory to unpack into, if any; a failed job's files are unpacked as well.
        show: whether to print its stdout.
    """
    ending = job.ending
    if ending is None:
        raise AssertionError("only jobs that have ended are collected")
    if ending.result is not None:
        path = path or _input_of(ending.result)
        _deliver(ending.result, into, show=show and ending.error is None)
    reused_from = ending.result.reused_from if ending.result is not None else None
    job.release()
    error = ending.error
    if error is None:
        return EndedJob(path, job.job_id, "done", reused_from=reused_from)
    if isinstance(error, JobFailedError):
        return EndedJob(path, job.job_id, "failed", error.reason, error.message, error.stderr_tail or "")
    return EndedJob(path, job.job_id, _state_of(error), None, str(error))


def _input_of(result: Result) -> Path | None:
    """What the input was called; None where the result has no manifest."""
    given = result.manifest.get("input", {})
    return Path(given["name"]) if "name" in given else None


def _deliver(result: Result, into: Path | None, *, show: bool) -> None:
    if into is not None:
        result.extract(into)
    elif show:
        typer.echo(result.stdout, nl=False)


def _state_of(error: RaygridError) -> str:
    if isinstance(error, JobCancelledError):
        return "cancelled"
    return "expired" if type(error).__name__ == "ResultExpiredError" else "refused"


def print_ended(ended: Sequence[EndedJob]) -> None:
    """Print a line for each job: its id, how it ended, and its input, with tabs between."""
    for job in ended:
        typer.echo("\t".join((job.job_id, job.state, str(job.path or ""))).rstrip())


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


def print_summary(batch_id: str, ended: Sequence[EndedJob], out_dir: Path | None) -> None:
    """Print the last lines: how many jobs ended how, and where the results are."""
    counts = Counter(job.state for job in ended)
    console = err()
    said = ", ".join(f"{count:,} {state}" for state, count in counts.most_common())
    console.print(f"batch {batch_id}: {said or 'no job has ended'}", highlight=False, markup=False)
    if reused := sum(job.reused_from is not None for job in ended):
        console.print(f"{reused:,} did not run: their results are those of equal jobs that ran before", highlight=False)
    if out_dir is not None and counts.keys() & {"done", "failed"}:
        console.print(f"results are below {out_dir}", highlight=False, markup=False)
