"""A grid on this machine restarts its nodes, and ends when its head or its owner does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.client import Client
from raygrid.local import GridFile, free_port, running_grid, start_grid, stop_grid
from raygrid.models import JobState
from raygrid.settings.model import GridSettings, load_settings
from raygrid.system.proc import start_time
from tests.support.job_directories import job_directories
from tests.support.ray_grid import alive, descendants, kill_hard, until

pytestmark = pytest.mark.own_grid

JOBS = 12
OWNER = """
import sys, raygrid
raygrid.init("sh {input}", racks=2)
print("up", flush=True)
sys.stdin.read()
"""


def raylets(below: int) -> list[int]:
    """Raylets that are children of a process."""
    found = []
    for pid in descendants(below):
        with contextlib.suppress(OSError):  # it has ended since
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
            if name.endswith("(raylet") and int(rest.split()[1]) == below:
                found.append(pid)
    return found


def log_of(grid: GridFile) -> str:
    """The supervisor's log."""
    return (grid.directory / "logs" / "supervisor.log").read_text(errors="replace")


def test_a_dead_node_starts_again_and_a_killed_notebook_takes_its_grid_along(tmp_path: Path) -> None:
    """`kill -9` of a raylet: its node is back under its name. `kill -9` of the owner: nothing of the grid stays."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAYGRID_STATE_DIR": str(tmp_path),
        "RAYGRID__HTTP__PORT": str(free_port()),
    }
    command = [sys.executable, "-c", OWNER]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "up\n"
            grid = running_grid("default", tmp_path)
            assert grid is not None
            [starter] = [pid for pid, title in descendants(grid.pid).items() if "scripts start --block" in title]
            [raylet] = raylets(starter)
            with Client(grid.url) as client:
                before = client.submit(b"echo before").result(60)
                assert before.stdout == "before\n"
                kill_hard(raylet)
                until(lambda: "starting node rack-b-1 again" in log_of(grid), within_s=100)
                assert "node rack-b-1 died (exit code 1)" in log_of(grid)
                jobs = client.map([b"sleep 0.2"] * 10)
                assert len(list(jobs.results(60))) == 10
                well = {"rack-a-1", "rack-b-1"}
                until(lambda: {node.node for node in client.nodes() if node.state == "ok"} == well, within_s=100)
            processes = descendants(grid.pid)
            kill_hard(owner.pid)
            until(lambda: start_time(grid.pid) is None, within_s=60)
            until(lambda: not alive(processes), within_s=60)
        finally:
            owner.kill()
    assert "for which this grid was started, has ended" in log_of(grid)
    assert not (grid.directory / "grid.json").exists()


def test_a_grid_whose_head_died_or_that_was_killed_starts_again_and_finishes_every_job(tmp_path: Path) -> None:
    """`kill -9` of the head's raylet ends the grid with a clear line; `kill -9` of the supervisor takes all along.

    The next start is at once, while processes of the grid before may still have the port, and finishes what was
    acknowledged.
    """
    settings = settings_for(tmp_path)
    grid = start_grid(settings)
    with Client(grid.url) as client:
        job = client.submit(b"echo kept")
        assert job.result(60).stdout == "kept\n"
    [raylet] = raylets(grid.pid)
    kill_hard(raylet)
    until(lambda: start_time(grid.pid) is None, within_s=30)
    assert f"the head has died: raylet (process {raylet}); ending the grid, `raygrid up` starts it again" in log_of(
        grid
    )
    assert not (grid.directory / "grid.json").exists()

    again = start_grid(settings)
    with Client(again.url) as client:
        assert client.job(job.job_id).result(10).stdout == "kept\n"
        jobs = client.map([f"sleep 0.5; echo {n}".encode() for n in range(JOBS)])
        until(lambda: client.batch(jobs.batch_id).status().counts[JobState.DONE] >= 1)
    processes = descendants(again.pid)
    kill_hard(again.pid)
    until(lambda: start_time(again.pid) is None, within_s=10)
    third = start_grid(settings)
    try:
        until(lambda: not alive(processes), within_s=120)
        with Client(third.url) as client:
            outputs = {result.stdout for result in client.batch(jobs.batch_id).results(60)}
            assert outputs == {f"{n}\n" for n in range(JOBS)}
            assert client.job(job.job_id).result(10).stdout == "kept\n"
            assert client.submit(b"echo new").result(60).stdout == "new\n"
    finally:
        stop_grid(third)
    assert job_directories(third.directory / "nodes") == []


def settings_for(directory: Path) -> GridSettings:
    """A shell, on one node."""
    return load_settings(
        pricers={"shell": {"command": "sh {input}"}}, http={"port": free_port()}, storage={"state_dir": directory}
    )
