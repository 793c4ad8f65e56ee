"""The example notebook runs from its first cell to its last."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from raygrid.local import free_port, running_grid

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebooks" / "pricing.ipynb"


def test_the_pricing_notebook_runs(tmp_path: Path) -> None:
    """Every cell runs in order on a grid that the notebook itself starts, and the grid ends with the notebook."""
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    program = "\n\n".join("".join(cell["source"]) for cell in cells)
    shown = "\n\nprint(len(prices), result.files)"
    done = subprocess.run(
        [sys.executable, "-c", program + shown],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "RAYGRID_STATE_DIR": str(tmp_path / "state"),
            "RAYGRID__HTTP__PORT": str(free_port()),
        },
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    failure, *_, last = done.stdout.strip().splitlines()
    assert failure.startswith("2 ")
    assert last == "60 ('prices.csv',)"
    assert running_grid("default", tmp_path / "state") is None
