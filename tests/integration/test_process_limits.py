"""Programs that exceed the limits of memory and processes in ways that leave the pricer's session and ancestry.

They run as an ordinary user in a PID namespace of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile_jobs import PROGRAMS
from tests.support.namespace import NOBODY, inside, why_not

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ended() -> dict[str, Any]:
    """How each program ended."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="raygrid-hostile-"))
    try:
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
        environment = {
            **os.environ,
            "HOME": str(directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        command = inside([sys.executable, "-m", "tests.support.hostile_jobs", str(directory), *PROGRAMS], 280)
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY)
        assert done.returncode == 0, done.stderr[-3000:]
        found: dict[str, Any] = json.loads(done.stdout)
        return found
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in ("shared pages", "uncertain origin")])
def test_a_program_that_exceeds_a_limit_is_killed_with_all_that_it_started(ended: dict[str, Any], name: str) -> None:
    """The reason names the limit, nothing of it is left 2 seconds later, and a job beside it is done."""
    report = ended[name]
    assert report["outcome"] == ("memory_limit" if "memory" in name or "daemon" in name else "process_limit"), report
    assert report["left"] == []
    assert report["good"] == "good\n"


@pytest.mark.timeout(300)
def test_pages_that_processes_share_count_once(ended: dict[str, Any]) -> None:
    """Six processes with the same 100 MB stay below a limit of 200 MB."""
    assert (ended["shared pages"]["outcome"], ended["shared pages"]["exit_code"]) == ("exited", 7)


@pytest.mark.timeout(300)
def test_a_daemon_that_several_jobs_may_have_started_is_killed_at_its_limit(ended: dict[str, Any]) -> None:
    """No job fails for it; if its origin is certain after all, its job has exceeded its limit."""
    report = ended["uncertain origin"]
    assert (report["outcome"], report["exit_code"]) in [("exited", 7), ("memory_limit", None)], report
    assert report["left"] == []
    assert report["good"] == "good\n"
