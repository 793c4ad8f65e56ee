"""A pricer without a sandbox that kills every process (`kill -9 -1`) is found, and all other jobs are done.

It needs no hosts, but a PID namespace of its own: the kill must reach no other process. It is skipped where none can be
made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raygrid.local import free_port
from tests.faults.grid_killer import GOOD
from tests.support.namespace import NOBODY, inside, why_not

pytestmark = pytest.mark.timeout(900)
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def outcome() -> Iterator[dict[str, Any]]:
    """What became of the grid, its jobs and its killers."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="raygrid-killed-"))  # pytest's own are below one that others cannot enter
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    try:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "USER": "nobody",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
            "RAYGRID_STATE_DIR": str(directory),
        }
        command = [sys.executable, "-m", "tests.faults.grid_killer", str(directory), str(free_port())]
        ended = subprocess.run(
            inside(command, 600), capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY
        )
        assert ended.returncode == 0, f"{ended.stderr[-3000:]}\n{ended.stdout[-1000:]}"
        found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        yield found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def test_the_killer_is_poison_after_as_many_starts_as_it_has_attempts(outcome: dict[str, Any]) -> None:
    """Each start counts the loss of the one before, and the third loss ends the job before it runs again."""
    state, reason, message, _ = outcome["jobs"]["killer"]
    assert (state, reason) == ("failed", "poison"), outcome
    assert "lost in each of 3 attempts" in message
    assert "signal only processes that it has started itself" in message
    assert outcome["starts"] == 4


def test_all_other_jobs_are_done(outcome: dict[str, Any]) -> None:
    """However often the grid went down under them, jobs beside the killer end with their own results."""
    assert {name: outcome["jobs"][name][0] for name in outcome["results"]} == dict.fromkeys(outcome["results"], "done")
    assert outcome["results"] == {f"good-{number}": str(number) for number in range(GOOD)}


def test_a_killer_is_cancelled_while_the_grid_is_down(outcome: dict[str, Any]) -> None:
    """The next start does not run it, and the grid stays up."""
    assert "job cancelled is cancelled" in outcome["cancel"]
    assert outcome["cancelled"][0] == "cancelled"
    assert outcome["starts_for_cancelled"] == 1
    assert outcome["still_up"]
    assert outcome["left"] == [], "`raygrid down` leaves no process"
