"""`raygrid cancel` while the grid on this machine is down."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from typer.testing import CliRunner, Result

from raygrid.cli import app
from raygrid.core.attempt_counts import AttemptCounts
from raygrid.local import offline
from raygrid.models import BlobSlice, JobSpec, JobState, JobUpdate, NewJob
from raygrid.settings.model import GridSettings, load_settings
from raygrid.store import SqlStore
from raygrid.store.port import JobStore
from raygrid.system.lock import holder, only_one
from tests.contract.test_job_store import AT, one


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GridSettings:
    """A grid that does not run."""
    for name in ("RAYGRID_URL", "RAYGRID_API_KEY", "RAYGRID_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "default").mkdir()
    return load_settings(None, storage={"state_dir": tmp_path})


Answer = TypeVar("Answer")


def in_store(settings: GridSettings, work: Callable[[JobStore], Awaitable[Answer]]) -> Answer:
    async def run() -> Answer:
        store = SqlStore(settings.database_url)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())


def with_jobs(settings: GridSettings, *, lease_s: float | None = None) -> None:
    """A queued job `q`, a running one `r` and one `d` that is done, all of the batch `b`."""

    async def fill(store: JobStore) -> None:
        place = BlobSlice("", 0, 2, "d")
        await store.insert([NewJob(JobSpec(name, "p", "1", place, inline=b"{}"), "rack-a", "f") for name in "qrd"], "b")
        lease = await store.acquire_lease("rack-a", "leader", lease_s or 3.0)
        assert lease is not None
        running = JobUpdate("r", JobState.RUNNING, AttemptCounts(1), "n", AT)
        await store.record("rack-a", lease.term, [running, JobUpdate("d", JobState.DONE, AttemptCounts(1), "n", AT)])
        if lease_s is None:
            await store.release_lease(lease)

    in_store(settings, fill)


def cancel(*words: str) -> Result:
    return CliRunner().invoke(app, ["cancel", *words])


def states(settings: GridSettings) -> dict[str, str]:
    async def read(store: JobStore) -> dict[str, str]:
        return {name: (await one(store, name)).state.value for name in "qrd"}

    found: dict[str, str] = in_store(settings, read)
    return found


def test_jobs_are_cancelled_while_the_grid_is_down(settings: GridSettings) -> None:
    """Jobs that waited or ran when the grid ended are cancelled at once; ended ones stay."""
    with_jobs(settings)
    ended = cancel("q", "r", "d")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout.splitlines() == [
        "job q is cancelled (grid default does not run)",
        "job r is cancelled (grid default does not run)",
        "job d has ended already: it is done",
    ]
    assert states(settings) == {"q": "cancelled", "r": "cancelled", "d": "done"}
    assert holder(settings.grid_dir) is None, "the grid can be started"


def test_a_batch_is_cancelled_while_the_grid_is_down(settings: GridSettings) -> None:
    """Of a batch all that has not ended is cancelled, once."""
    with_jobs(settings)
    assert len(cancel("--batch", "b").stdout.splitlines()) == 2
    assert states(settings) == {"q": "cancelled", "r": "cancelled", "d": "done"}
    assert cancel("--batch", "b").stdout.strip() == "all jobs of batch b have ended already"


def test_the_lease_of_a_leader_that_was_killed_is_waited_for(settings: GridSettings) -> None:
    """Right after a crash the dead leader's lease has not run out yet: the jobs are cancelled once it has."""
    with_jobs(settings, lease_s=1.0)
    assert "job r is cancelled (grid default" in cancel("r").stdout
    assert states(settings)["r"] == "cancelled"


def test_a_lease_that_lasts_leaves_the_request(settings: GridSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a lease does not run out in time, the request is in the store for the next leader."""
    monkeypatch.setattr(offline, "LEASE_S", 0.0)
    with_jobs(settings, lease_s=60.0)
    assert cancel("r").stdout.strip() == "job r is cancelled when the grid starts, before it runs"

    async def wished(store: JobStore) -> bool:
        return (await one(store, "r")).cancel_requested

    assert in_store(settings, wished)


def test_an_unknown_job_cancels_nothing(settings: GridSettings) -> None:
    """A mistyped id is an error, and the other jobs go on."""
    with_jobs(settings)
    ended = cancel("q", "nope")
    assert ended.exit_code == 1
    assert "there is no job 'nope' in grid 'default'; nothing was cancelled" in ended.stderr
    assert "there is no batch 'x'" in cancel("--batch", "x").stderr
    assert states(settings)["q"] == "queued"


def test_without_any_grid_nothing_is_made(settings: GridSettings) -> None:
    """If no grid ever ran, the error has the place that was searched, and no job store appears."""
    ended = cancel("q")
    assert ended.exit_code == 2
    assert f"none has left jobs in {settings.grid_dir}" in ended.stderr
    assert list(settings.grid_dir.iterdir()) == []
    assert "give either" in CliRunner().invoke(app, ["--url", "http://x", "cancel", "q", "--name", "y"]).stderr


def test_a_grid_that_is_just_starting_is_not_touched(settings: GridSettings) -> None:
    """While another process holds the grid's lock nothing is written, and the error has what to do."""
    with_jobs(settings)
    script = (
        "import sys; from pathlib import Path; from raygrid.system.lock import only_one\n"
        f"with only_one(Path({str(settings.grid_dir)!r})): print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    try:
        ended = cancel("q")
        assert ended.exit_code == 2
        assert f"is being started or stopped by process {other.pid}" in ended.stderr
    finally:
        other.communicate()
    assert states(settings)["q"] == "queued"
    with only_one(settings.grid_dir):
        pass
    assert cancel("q").exit_code == 0
