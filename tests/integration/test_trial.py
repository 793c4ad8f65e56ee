"""`raygrid bench` on a whole grid: the tiers in one process, pricers as real processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raygrid.cli import app
from raygrid.client import Client
from raygrid.models import JobState
from raygrid.trial import Trial, run_trial, verdict
from tests.support.small_grid import SmallGrid

JOBS = 12


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(tmp_path, slots=3) as running:
        yield running


async def test_it_measures_the_pricer_and_what_the_grid_adds(grid: SmallGrid, tmp_path: Path) -> None:
    """Every job of the batch is accounted for, and no part of its time is longer than the whole."""
    script = tmp_path / "sleep.sh"
    script.write_text("sleep 0.2")

    def trial() -> Trial:
        with Client(grid.url) as client:
            return run_trial(client, script, JOBS, pricer="shell")

    seen = await asyncio.to_thread(trial)
    assert seen.slots == 3
    assert seen.alone is not None
    assert 0.2 <= seen.alone.ran_s <= seen.alone_whole_s
    assert len(seen.times) == seen.jobs == JOBS
    assert not seen.failures
    assert all(times.ran_s >= 0.2 and times.waited_s + times.ran_s <= seen.elapsed_s for times in seen.times)
    # Four rounds of 0.2 s on three slots.
    assert seen.elapsed_s >= 0.8
    used = verdict(seen).used
    assert used is not None
    assert sum(times.ran_s for times in seen.times) / (3 * seen.elapsed_s) == pytest.approx(used)


async def test_the_command_prints_the_verdict(grid: SmallGrid, tmp_path: Path) -> None:
    """Against a grid over HTTP, as a user calls it."""
    script = tmp_path / "fast.sh"
    script.write_text("echo priced")
    words = ["--url", grid.url, "bench", str(script), "--pricer", "shell", "--jobs", str(JOBS)]
    ended = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert ended.exit_code == 0, ended.stderr
    assert f"{JOBS} jobs in " in ended.stdout
    assert "The grid adds " in ended.stdout
    ended = await asyncio.to_thread(CliRunner().invoke, app, [*words, "--json"])
    assert len(json.loads(ended.stdout)["times"]) == JOBS


async def test_jobs_that_have_not_ended_are_cancelled_on_an_interrupt(grid: SmallGrid, tmp_path: Path) -> None:
    """Half of them are through when it is interrupted; no other goes on."""
    script = tmp_path / "slow.sh"
    script.write_text("sleep 0.3")

    def interrupted_halfway(done: int, total: int) -> None:
        if done == total // 2:
            raise KeyboardInterrupt

    def trial() -> list[JobState]:
        with Client(grid.url) as client:
            with pytest.raises(KeyboardInterrupt):
                run_trial(client, script, JOBS, pricer="shell", progress=interrupted_halfway)
            batches = {job.state for job in client.jobs()}
            while batches & {JobState.QUEUED, JobState.RUNNING}:
                batches = {job.state for job in client.jobs()}
            return [job.state for job in client.jobs()]

    async with asyncio.timeout(30):
        states = await asyncio.to_thread(trial)
    assert states.count(JobState.DONE) >= 1 + JOBS // 2
    assert states.count(JobState.CANCELLED) >= 1
    assert len(states) == 1 + JOBS


async def test_loading_a_warm_pricer_is_not_counted_as_a_jobs_time(tmp_path: Path) -> None:
    """The job that loads the pricer runs before the one that is timed alone, and is marked in the batch."""
    program = tmp_path / "price.py"
    program.write_text(
        "import time\nimport raygrid.pricer\ntime.sleep(0.5)\nraygrid.pricer.serve(lambda job: print('priced'))\n"
    )
    warm = {"warm": {"command": [sys.executable, str(program)], "mode": "warm"}}
    (tmp_path / "input").write_text("1\n")

    def trial(url: str) -> Trial:
        with Client(url) as client:
            return run_trial(client, tmp_path / "input", JOBS, pricer="warm")

    async with SmallGrid(tmp_path, slots=2, pricers=warm) as grid:
        seen = await asyncio.to_thread(trial, grid.url)
    assert seen.loading is not None
    assert seen.loading.ran_s >= 0.5
    assert seen.alone is not None
    assert seen.alone.warm_job == 2
    assert seen.alone.ran_s < 0.5
    assert sum(times.loaded for times in seen.times) <= 1  # there is a process left from before
    assert "It stays loaded between jobs (mode: warm)" in "\n".join(verdict(seen).found)
