"""Cancels jobs of a grid on this machine that does not run, in its job store.

A job that brings down the whole grid cannot be cancelled in another way. The grid's lock is held meanwhile, so that it
cannot start; a grid that is starting or stopping is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raygrid.errors import JobNotFoundError, SettingsError
from raygrid.models import StoredJob
from raygrid.settings.model import GridSettings
from raygrid.store import JobStore, SqlStore
from raygrid.system.grid_file import down_command
from raygrid.system.lock import holder, only_one

LEASE_S = 5.0  # the lease of a leader that was killed just now lasts so long
_POLL_S = 0.2
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The outcome of cancelling one job.

    Attributes:
        job_id: the job.
        ended: its state if it had ended already, else None.
        at_start: whether it is cancelled only when the grid starts, before it runs.
    """

    job_id: str
    ended: str | None = None
    at_start: bool = False


def cancel_offline(settings: GridSettings, job_ids: Sequence[str], batch_id: str | None = None) -> list[Cancelled]:
    """Cancel jobs of a grid that does not run; jobs that have ended do not change.

    Args:
        settings: the settings of the grid.
        job_ids: the jobs; if one of them does not exist, none is cancelled.
        batch_id: a batch whose unfinished jobs are cancelled, too.

    Raises:
        SettingsError: there is no such grid on this machine, or it is starting or stopping.
        JobNotFoundError: there is no such job or batch.
    """
    require_state(settings)
    with only_one(settings.grid_dir):
        return asyncio.run(_cancel(settings, job_ids, batch_id))


def require_state(settings: GridSettings) -> None:
    """Refuse a grid that has never run here, or whose processes run.

    Raises:
        SettingsError: the message names the remedy.
    """
    there = _job_file(settings)
    if not (settings.grid_dir.is_dir() and (there is None or there.exists())):
        raise SettingsError(
            f"no grid {settings.name!r} runs on this machine, and none has left jobs in {settings.grid_dir}. Name "
            "another grid with --url or RAYGRID_URL, or with --name or --config as it was started"
        )
    if (other := holder(settings.grid_dir)) is not None:
        raise SettingsError(
            f"grid {settings.name!r} is being started or stopped by process {other.pid}: try again when it is up or "
            f"down. If that takes too long, stop it with `{down_command(settings.grid_dir, settings.config)}`"
        )


def _job_file(settings: GridSettings) -> Path | None:
    """The file of the job store; None if that is a database server."""
    return settings.grid_dir / "jobs.db" if settings.storage.database is None else None


async def _cancel(settings: GridSettings, job_ids: Sequence[str], batch_id: str | None) -> list[Cancelled]:
    store = SqlStore(settings.database_url)
    await store.open()
    try:
        wanted = list(dict.fromkeys(job_ids))
        known = await store.get(wanted)
        if missing := [job_id for job_id in wanted if job_id not in known]:
            raise JobNotFoundError(f"there is no job {missing[0]!r} in grid {settings.name!r}; nothing was cancelled")
        if batch_id is not None:
            if await store.batch(batch_id) is None:
                raise JobNotFoundError(f"there is no batch {batch_id!r} in grid {settings.name!r}")
            wanted = list(dict.fromkeys([*wanted, *await store.unfinished_of_batch(batch_id)]))
        cancelling = await store.request_cancel(wanted)
        left = await _end(store, cancelling)
        found = await store.get(wanted)
        unfinished = {job.job_id for job in cancelling}
        return [
            Cancelled(job_id, None if job_id in unfinished else found[job_id].state.value, job_id in left)
            for job_id in wanted
        ]
    finally:
        await store.close()


async def _end(store: JobStore, jobs: Sequence[StoredJob]) -> set[str]:
    """End jobs of groups whose lease has expired; gives the ids of the others, which end when the grid starts."""
    left: dict[str, set[str]] = {}
    for job in jobs:
        left.setdefault(job.group_id, set()).add(job.job_id)
    until = time.monotonic() + LEASE_S
    while True:
        for group_id, job_ids in list(left.items()):
            chunk = sorted(job_ids)[:_AT_ONCE]
            ended = await store.cancel_unled(group_id, chunk, running=True)
            if ended is not None:
                left[group_id].difference_update(chunk)  # the others of the chunk had ended already
        left = {group_id: job_ids for group_id, job_ids in left.items() if job_ids}
        if not left or time.monotonic() > until:
            return {job_id for job_ids in left.values() for job_id in job_ids}
        await asyncio.sleep(_POLL_S)
