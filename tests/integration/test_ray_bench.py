"""`make bench` runs: tiny rounds of its workloads on real grids of their own, which are not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("workloads", [(1, 2), (3, 4, 5), (6, 8), (7,)])
def test_a_quick_run_has_a_figure_for_everything(workloads: tuple[int, ...], tmp_path: Path) -> None:
    """Every contender of a quick run, and every workload, is in the table and in the JSON with a value."""
    chosen = [f"--workload={number}" for number in workloads]
    command = [sys.executable, "-m", "bench", "--quick", *chosen, f"--json={tmp_path / 'bench.json'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    written = json.loads((tmp_path / "bench.json").read_text())["workloads"]
    assert [each["workload"] for each in written] == list(workloads)
    for each in written:
        assert f"Workload {each['workload']}: " in done.stdout
        assert each["figures"]
        without = [figure for figure in each["figures"] if figure["median"] is None]
        assert without == []
    if 1 in workloads:
        assert {figure["of"] for figure in written[0]["figures"]} == {"xargs", "threads", "raygrid"}
