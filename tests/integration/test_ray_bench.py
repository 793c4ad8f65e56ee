"""`make bench` runs: tiny rounds of some of its workloads on real grids of their own, without judging figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.own_grid

ROOT = Path(__file__).parents[2]
# One with contenders, one with sizes and memory of tiers, one with clients only: the others are made of the same parts,
# and each starts a grid or more.
WORKLOADS = (1, 5, 8)


@pytest.mark.parametrize("number", WORKLOADS)
def test_a_quick_run_has_a_figure_for_everything(number: int, tmp_path: Path) -> None:
    """Whatever the workload measures is in the table, and in the JSON with a value."""
    command = [sys.executable, "-m", "bench", "--quick", f"--workload={number}", f"--json={tmp_path / 'bench.json'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    [written] = json.loads((tmp_path / "bench.json").read_text())["workloads"]
    assert written["workload"] == number
    assert f"Workload {number}: " in done.stdout
    assert written["figures"]
    without = [figure for figure in written["figures"] if figure["median"] is None]
    assert without == []
    if number == 1:
        assert {figure["of"] for figure in written["figures"]} == {"xargs", "threads", "raygrid"}
