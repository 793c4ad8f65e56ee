"""The whole grid is killed at once, and started again on the same state."""

from __future__ import annotations

from pathlib import Path

import pytest

from raygrid.client import Client
from raygrid.local import start_grid, stop_grid
from raygrid.models import JobState
from tests.support.ray_grid import alive, descendants, kill_hard, marked, settings_for, until

pytestmark = pytest.mark.own_grid

JOBS = 12


def test_everything_killed_and_started_again_finishes_every_job(tmp_path: Path) -> None:
    """`kill -9` of the supervisor takes every process with it; the next start finishes what was acknowledged."""
    settings = settings_for(tmp_path)
    first = start_grid(settings)
    client = Client(first.url)
    done = client.submit(b"echo before", pricer="shell")
    assert done.result(30).stdout == "before\n"
    jobs = client.map([f"sleep 0.5; echo {n}".encode() for n in range(JOBS)], pricer="shell")
    until(lambda: client.batch(jobs.batch_id).status().counts[JobState.DONE] >= 1)
    processes = descendants(first.pid)
    kill_hard(first.pid)
    until(lambda: not alive(processes), within_s=120)
    until(lambda: not marked(str(tmp_path)), within_s=10)
    second = start_grid(settings)
    try:
        again = Client(second.url)
        outputs = {result.stdout for result in again.batch(jobs.batch_id).results(60)}
        assert outputs == {f"{n}\n" for n in range(JOBS)}
        assert again.job(done.job_id).result(10).stdout == "before\n"
    finally:
        stop_grid(second)
    assert not list((tmp_path / "test" / "nodes").glob("*/jobs/*/*"))
