"""The example notebook runs in a real kernel from its first cell to its last, wherever Jupyter was started."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raygrid.local import free_port, running_grid

pytestmark = pytest.mark.documents

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "notebooks" / "pricing.ipynb"
UV = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

# As Jupyter does it: a kernel in the directory where it was started.
EXECUTE = """
import sys, nbclient, nbformat
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=150, resources={"metadata": {"path": "."}}).execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.mark.parametrize("below_uv_run", [False, True], ids=["from the project's directory", "from its own, below uv"])
def test_the_pricing_notebook_runs(tmp_path: Path, below_uv_run: bool) -> None:
    """Every cell runs in order on a grid that the notebook itself starts, and the grid ends with the notebook."""
    if below_uv_run and UV is None:
        pytest.skip("uv is not installed; `pip install uv` into this environment")
    state, executed = tmp_path / "state", tmp_path / "executed.ipynb"
    wrapped = [str(UV), "run", "--no-project", "--python", sys.executable] if below_uv_run else []
    done = subprocess.run(
        [*wrapped, sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(executed)],
        cwd=NOTEBOOK.parent if below_uv_run else ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "RAYGRID_STATE_DIR": str(state),
            "RAYGRID__HTTP__PORT": str(free_port()),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    cells = [cell for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    shown = [
        "".join("".join(out.get("text") or out["data"]["text/plain"]) for out in cell["outputs"]) for cell in cells
    ]
    assert "prices.csv" in shown[1]
    assert shown[2].startswith("(60, ")
    assert shown[3].startswith("2 ")
    assert running_grid("default", state) is None
