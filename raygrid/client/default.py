"""Which grid `raygrid.submit` and its siblings talk to, and how it is found."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Unpack, overload

from raygrid.client import interrupted
from raygrid.client.blocking_client import Client
from raygrid.client.endpoint import one_url
from raygrid.client.flows import CONTACT_S
from raygrid.client.jobs import BatchJobs, Job
from raygrid.client.options import SubmitKeywords, new_id
from raygrid.client.result import Result
from raygrid.client.upload import Input
from raygrid.errors import RaygridError, SettingsError
from raygrid.system.grid_file import file_of, running_grid

_default: Client | None = None


def find_grid(url: str | Sequence[str] | None = None, api_key: str | None = None) -> tuple[str, str | None]:
    """Find the URL and the API key of the grid to use.

    Each is looked for in the argument, then in RAYGRID_URL and RAYGRID_API_KEY, then in the file that a grid
    on this machine leaves. The key in that file goes to no other grid than the file's own.

    Raises:
        SettingsError: there is no URL anywhere, or the file of the grid on this machine cannot be read; the message
            names the remedy.
    """
    url = one_url(url or os.environ.get("RAYGRID_URL") or "")
    api_key = api_key or os.environ.get("RAYGRID_API_KEY") or None
    if url:
        return url, api_key
    local = running_grid()
    if local is None:
        raise SettingsError(
            "which grid? Set RAYGRID_URL, say --url or raygrid.connect(url), or start a grid on this machine with "
            f"`raygrid up` or raygrid.init(). (No grid runs here: looked in {file_of()}.)"
        )
    return local.url, api_key or local.api_key


def connect(
    url: str | Sequence[str] | None = None, api_key: str | None = None, *, contact_s: float = CONTACT_S, **options: Any
) -> Client:
    """Choose the grid for `raygrid.submit`, `raygrid.map` and the rest of this process, and see that it answers.

    Args:
        url: where its parents listen, one entry or several; by default RAYGRID_URL, then a grid on this machine.
        api_key: the key, where the grid wants one; by default RAYGRID_API_KEY.
        contact_s: seconds in which it has to answer.
        **options: further arguments of `Client`.

    Raises:
        SettingsError: no grid is known.
        ConnectionFailedError: no grid answers there.
        NotAuthorizedError: it does not take the key.
    """
    global _default  # noqa: PLW0603 - the point of this function is to set what the module's functions share
    chosen = Client(*find_grid(url, api_key), **options)
    try:
        chosen.contact(contact_s)
    except BaseException:
        chosen.close()
        raise
    _default = chosen
    return chosen


def forget() -> None:
    """Close the default client, if there is one."""
    global _default  # noqa: PLW0603 - as in connect
    if _default is not None:
        _default.close()
    _default = None


def client() -> Client:
    """Give the default client; it is made at its first use, and the grid is asked by the call that follows.

    Raises:
        SettingsError: no grid is known.
    """
    global _default  # noqa: PLW0603 - as in connect
    if _default is None:
        _default = Client(*find_grid())
    return _default


def submit(
    file_or_bytes: Input,
    *,
    job_id: str | None = None,
    filename: str | None = None,
    **options: Unpack[SubmitKeywords],
) -> Job:
    """Submit one job to the default grid; as `Client.submit`."""
    return client().submit(file_or_bytes, job_id=job_id, filename=filename, **options)


@overload
def map(
    inputs: Iterable[Input] | Mapping[str, Input],
    *,
    job_ids: Iterable[str] | None = None,
    batch_id: str | None = None,
    timeout: float | None = None,
    return_errors: Literal[False] = False,
    **options: Unpack[SubmitKeywords],
) -> Iterator[Result]: ...
@overload
def map(
    inputs: Iterable[Input] | Mapping[str, Input],
    *,
    job_ids: Iterable[str] | None = None,
    batch_id: str | None = None,
    timeout: float | None = None,
    return_errors: bool,
    **options: Unpack[SubmitKeywords],
) -> Iterator[Result | RaygridError]: ...
def map(
    inputs: Iterable[Input] | Mapping[str, Input],
    *,
    job_ids: Iterable[str] | None = None,
    batch_id: str | None = None,
    timeout: float | None = None,
    return_errors: bool = False,
    **options: Unpack[SubmitKeywords],
) -> Iterator[Result | RaygridError]:
    """Run all inputs on the default grid and give their results in the order of the inputs.

    The jobs are submitted at once; each result comes as soon as it and all before it are there.

    Args:
        inputs: paths, bytes or binary files, or a mapping from job id to such.
        job_ids: one id per input; fresh UUIDv7s by default.
        batch_id: add to this batch; a fresh one by default.
        timeout: seconds for all results together; None for as long as it takes.
        return_errors: give the error of a job that failed in its place instead of raising it.
        **options: for all jobs: pricer, args, priority, affinity, site, timeout_s, data: see `JobOptions`.

    Interrupted (Ctrl-C, or the stop button of a notebook), it prints how to cancel the jobs, which go on, and how to
    come back to their results.
    """
    batch_id = new_id() if batch_id is None else batch_id
    grid = client()
    with _telling_of_jobs(grid, batch_id):
        jobs = grid.map(inputs, job_ids=job_ids, batch_id=batch_id, **options)
    return _handed_over(grid, jobs, jobs.results(timeout, return_errors=return_errors))


def _handed_over(
    grid: Client, jobs: BatchJobs, results: Iterator[Result | RaygridError]
) -> Iterator[Result | RaygridError]:
    """Keep no result that the caller has: a long map would hold them all."""
    with _telling_of_jobs(grid, jobs.batch_id):
        given = 0
        for job, result in zip(jobs, results, strict=True):
            job.release()
            given += 1  # noqa: SIM113 - enumerate would hold on to the result
            try:
                yield result
            except GeneratorExit:
                # An interrupt of what the caller does with a result cannot be told from a `break`; either way jobs that
                # the caller may have forgotten go on.
                if any(other.ending is None for other in jobs[given:]):
                    _tell(grid, jobs.batch_id, left=True)
                raise


@contextmanager
def _telling_of_jobs(grid: Client, batch_id: str) -> Iterator[None]:
    """Say after an interrupt that the jobs of a batch go on, and what can be done."""
    try:
        yield
    except KeyboardInterrupt:
        _tell(grid, batch_id)
        raise


def _tell(grid: Client, batch_id: str, *, left: bool = False) -> None:
    try:
        found, key = find_grid()
    except SettingsError:
        found, key = None, None
    url = None if found == grid.url else grid.url
    needs_key = grid.has_key and (url is not None or key is None) and not os.environ.get("RAYGRID_API_KEY")
    own = getattr(sys.modules.get("raygrid"), "_own_grid", None)
    ends = own is not None and own.url == grid.url
    interrupted.tell(interrupted.message(batch_id, url, left=left, needs_key=needs_key, ends_with_process=ends))
