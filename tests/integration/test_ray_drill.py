"""`raygrid drill` on real Ray: the command as ops run it, on the grid that the tests share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from raygrid.client import Client
from raygrid.local import GridFile
from tests.support.ray_grid import pids_of, until

ROOT = Path(__file__).parents[2]


def drill(grid: GridFile, *words: str) -> list[dict[str, Any]]:
    """Run a drill; gives its scenarios."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(grid.directory),
        "PYTHONPATH": str(ROOT),
        "RAYGRID_STATE_DIR": str(grid.directory.parent),
        "RAYGRID_URL": grid.url,
    }
    command = [sys.executable, "-c", "from raygrid.cli import app; app()", "drill", *words, "--json", "--yes"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found: list[dict[str, Any]] = json.loads(done.stdout)["scenarios"]
    return found


def test_an_agent_is_killed_and_nothing_is_lost(ray_grid: GridFile) -> None:
    """The agent with running jobs dies; they run again, every result is as before, and the time is measured."""
    before = set(pids_of(ray_grid.pid, "ray::NodeAgentActor"))
    [scenario] = drill(ray_grid, "agent", "--jobs", "40")
    assert scenario["done"] == scenario["acknowledged"] >= 40
    assert (scenario["lost"], scenario["wrong"], scenario["client_errors"]) == (0, 0, 0)
    assert scenario["repeated"] > 0
    assert 0 < scenario["recovery_s"] < 20
    assert before - set(pids_of(ray_grid.pid, "ray::NodeAgentActor")), "an agent has had another life since"


def test_a_leader_is_killed_and_then_one_frozen_and_nothing_is_lost(ray_grid: GridFile, client: Client) -> None:
    """Whether it dies or is frozen for a while, the group works on, and none of its writes is undone."""
    killed, frozen = drill(ray_grid, "leader", "--jobs", "40")
    for scenario in (killed, frozen):
        assert scenario["done"] == scenario["acknowledged"] >= 40
        assert (scenario["lost"], scenario["wrong"], scenario["client_errors"]) == (0, 0, 0)
        assert 0 < scenario["recovery_s"] < 30
    assert killed["hit"].startswith("kill the leader of rack-")
    assert frozen["hit"].startswith("freeze for 6 s the leader of rack-")
    until(lambda: len([node for node in client.nodes() if node.state == "ok"]) == 2)
