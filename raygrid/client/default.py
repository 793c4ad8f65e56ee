"""The default grid of `raygrid.submit`, `raygrid.map` and `raygrid.connect`, and how it is found."""

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
from raygrid.system.grid_file import grid_file_path, running_grid

_default: Client | None = None


def find_grid(url: str | Sequence[str] | None = None, api_key: str | None = None) -> tuple[str, str | None]:
    """Find the URL and the API key of the grid to use.

    Sources, in this order: the argument; RAYGRID_URL or RAYGRID_API_KEY; the file of a grid on this machine, whose key
    is used for that grid only.

    Raises:
        SettingsError: no source has a URL, or the file cannot be read; the message names the remedy.
    """
    url = one_url(url or os.environ.get("RAYGRID_URL") or "")
    api_key = api_key or os.environ.get("RAYGRID_API_KEY") or None
    if url:
        return url, api_key
    local = running_grid()
    if local is None:
        raise SettingsError(
            "no grid runs on this machine, and no URL is given: set RAYGRID_URL, use --url or raygrid.connect(url), or "
            f"start a grid with `raygrid up` or raygrid.init(). (Looked in {grid_file_path()}; for "
            "a grid with another storage.state_dir set RAYGRID_STATE_DIR to it.)"
        )
    return local.url, api_key or local.api_key


def connect(
    url: str | Sequence[str] | None = None, api_key: str | None = None, *, contact_s: float = CONTACT_S, **options: Any
) -> Client:
    """Choose the grid for `raygrid.submit` and `raygrid.map` in this process, and check that it answers.

    Args:
        url: URL of its parents, one entry or several; by default RAYGRID_URL, then a grid on this machine.
        api_key: the API key, if the grid requires one; by default RAYGRID_API_KEY.
        contact_s: seconds in which the grid must answer.
        **options: further arguments of `Client`.

    Raises:
        SettingsError: no grid is known.
        ConnectionFailedError: no grid answers at the URL.
        NotAuthorizedError: the key is missing or wrong.
    """
    global _default  # noqa: PLW0603 - the module's functions share the client
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
    """Give the default client, which is made at its first use, without a request.

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
    """Submit one job to the default grid; see `Client.submit`."""
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
        inputs: paths, bytes or binary files, or a mapping from job id to input.
        job_ids: one id per input; by default new UUIDv7s.
        batch_id: id of the batch, which may exist; by default a new one.
        timeout: seconds for all results together; None for no limit.
        return_errors: give the error of a failed job in place of its result instead of raising it.
        **options: for all jobs: pricer, args, priority, affinity, site, timeout_s, data: see `JobOptions`.

    After an interrupt (Ctrl-C, or the stop button of a notebook) the jobs go on; a message shows how to cancel them and
    how to fetch their results.
    """
    batch_id = new_id() if batch_id is None else batch_id
    grid = client()
    with _explaining_interrupts(grid, batch_id):
        jobs = grid.map(inputs, job_ids=job_ids, batch_id=batch_id, **options)
    return _released(grid, jobs, jobs.results(timeout, return_errors=return_errors))


def _released(
    grid: Client, jobs: BatchJobs, results: Iterator[Result | RaygridError]
) -> Iterator[Result | RaygridError]:
    """Give the results without keeping them: those of a long map would fill the memory."""
    with _explaining_interrupts(grid, jobs.batch_id):
        given = 0
        for job, result in zip(jobs, results, strict=True):
            job.release()
            given += 1  # noqa: SIM113 - enumerate would keep a reference to the result
            try:
                yield result
            except GeneratorExit:
                # The caller left its loop by `break` or by an interrupt, which look the same here. In both cases its
                # jobs go on.
                if any(other.ending is None for other in jobs[given:]):
                    _explain(grid, jobs.batch_id, left=True)
                raise


@contextmanager
def _explaining_interrupts(grid: Client, batch_id: str) -> Iterator[None]:
    """Print after an interrupt that the jobs of a batch go on, and what can be done."""
    try:
        yield
    except KeyboardInterrupt:
        _explain(grid, batch_id)
        raise


def _explain(grid: Client, batch_id: str, *, left: bool = False) -> None:
    try:
        found, key = find_grid()
    except SettingsError:
        found, key = None, None
    url = None if found == grid.url else grid.url
    needs_key = grid.has_key and (url is not None or key is None) and not os.environ.get("RAYGRID_API_KEY")
    own = getattr(sys.modules.get("raygrid"), "_own_grid", None)
    ends = own is not None and own.url == grid.url
    if sys.stderr is not None:  # None while the interpreter ends, and in programs without a console
        text = interrupted.message(batch_id, url, left=left, needs_key=needs_key, ends_with_process=ends)
        print(text, file=sys.stderr, flush=True)
