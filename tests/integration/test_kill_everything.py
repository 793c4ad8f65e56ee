"""A pricer that kills every process it can reach, on a grid without Ray whose nodes come up late after each crash.

`tests/faults/test_kill_everything.py` does the same with Ray. Both need a PID namespace: the kill must reach no other
process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.doomed_grid import GOOD
from tests.support.namespace import NOBODY, inside, why_not

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.timeout(300)
def test_the_killer_is_poison_and_all_others_are_done() -> None:
    """After as many crashes as it has attempts the killer is found; no other job fails, whatever was committed."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="raygrid-doomed-"))
    try:
        if os.geteuid() == 0:
            os.chown(directory, NOBODY, NOBODY)
        environment = {
            **os.environ,
            "HOME": str(directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        command = inside([sys.executable, "-m", "tests.support.doomed_grid", str(directory)], 280)
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=REPOSITORY)
        assert ended.returncode == 0, ended.stderr[-3000:]
        reported = json.loads(ended.stdout)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    state, reason, message, losses = reported["jobs"].pop("killer")
    assert (reported["starts"], state, reason, losses) == (4, "failed", "poison", 3), ended.stderr[-3000:]
    assert "signal only processes that it has started itself" in message
    assert {name: job[0] for name, job in reported["jobs"].items()} == {f"good-{n}": "done" for n in range(GOOD)}
