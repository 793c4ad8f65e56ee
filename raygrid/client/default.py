"""Which grid `raygrid.submit` and its siblings talk to, and how it is found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack, overload

from raygrid.client.batch import BatchJobs
from raygrid.client.endpoint import one_url
from raygrid.client.job import Job
from raygrid.client.options import Options
from raygrid.client.result import Result
from raygrid.client.sync import Client
from raygrid.client.upload import Input
from raygrid.errors import RaygridError, SettingsError
from raygrid.home import expanded

_default: Client | None = None


def find_grid(url: str | Sequence[str] | None = None, api_key: str | None = None) -> tuple[str, str | None]:
    """Find the URL and the API key of the grid to use.

    Each is looked for in the argument, then in RAYGRID_URL and RAYGRID_API_KEY, then in the file that a grid
    on this machine leaves. The key in that file goes to no other grid than the file's own.

    Raises:
        SettingsError: there is no URL anywhere; says what to do.
    """
    url = one_url(url or os.environ.get("RAYGRID_URL") or "")
    api_key = api_key or os.environ.get("RAYGRID_API_KEY") or None
    if url:
        return url, api_key
    path = expanded(os.environ.get("RAYGRID_STATE_DIR") or "~/.raygrid") / "default" / "grid.json"
    local = _local_grid(path)
    if local is None:
        raise SettingsError(
            "which grid? Set RAYGRID_URL, say --url or raygrid.connect(url), or start a grid on this machine with "
            f"`raygrid up` or raygrid.init(). ({_why_none(path)})"
        )
    return str(local["url"]), api_key or local.get("api_key")


def _local_grid(path: Path) -> dict[str, Any] | None:
    """Read the file that a running grid on this machine leaves; None without one that lives."""
    try:
        grid = json.loads(path.read_text(encoding="utf-8"))
        pid = int(grid["pid"])
        if not grid["url"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    found: dict[str, Any] = grid
    return found


def _why_none(path: Path) -> str:
    try:
        json.loads(path.read_text(encoding="utf-8"))["url"].strip()
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"{path} cannot be read: if a grid runs here, stop it with `raygrid down` and start it again."
    return f"No grid runs here: looked in {path}."


def connect(url: str | Sequence[str] | None = None, api_key: str | None = None, **options: Any) -> Client:
    """Choose the grid for `raygrid.submit`, `raygrid.map` and the rest of this process.

    Args:
        url: where its parents listen, one entry or several; by default RAYGRID_URL, then a grid on this machine.
        api_key: the key, where the grid wants one; by default RAYGRID_API_KEY.
        **options: further arguments of `Client`.

    Raises:
        SettingsError: no grid is known.
    """
    global _default  # noqa: PLW0603 - the point of this function is to set what the module's functions share
    _default = Client(*find_grid(url, api_key), **options)
    return _default


def forget() -> None:
    """Close the default client, if there is one."""
    global _default  # noqa: PLW0603 - as in connect
    if _default is not None:
        _default.close()
    _default = None


def client() -> Client:
    """Give the default client; connects at its first use.

    Raises:
        SettingsError: no grid is known.
    """
    return _default or connect()


def submit(
    file_or_bytes: Input,
    *,
    job_id: str | None = None,
    filename: str | None = None,
    **options: Unpack[Options],
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
    **options: Unpack[Options],
) -> Iterator[Result]: ...
@overload
def map(
    inputs: Iterable[Input] | Mapping[str, Input],
    *,
    job_ids: Iterable[str] | None = None,
    batch_id: str | None = None,
    timeout: float | None = None,
    return_errors: bool,
    **options: Unpack[Options],
) -> Iterator[Result | RaygridError]: ...
def map(
    inputs: Iterable[Input] | Mapping[str, Input],
    *,
    job_ids: Iterable[str] | None = None,
    batch_id: str | None = None,
    timeout: float | None = None,
    return_errors: bool = False,
    **options: Unpack[Options],
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
    """
    jobs = client().map(inputs, job_ids=job_ids, batch_id=batch_id, **options)
    return _handed_over(jobs, jobs.results(timeout, return_errors=return_errors))


def _handed_over(jobs: BatchJobs, results: Iterator[Result | RaygridError]) -> Iterator[Result | RaygridError]:
    """Keep no result that the caller has: a long map would hold them all."""
    for job, result in zip(jobs, results, strict=True):
        job.release()
        yield result
