"""What `make demo` prints while it starts; what it does is tested on grids."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

import raygrid.local
from raygrid.cli import app
from raygrid.errors import RaygridError

ROOT = Path(__file__).parents[2]


def test_the_demo_prints_that_it_starts_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """The start takes many seconds, so the line is printed without a terminal, too."""

    def start(*given: object, **options: object) -> None:
        raise RaygridError("not here")

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(raygrid.local, "start_grid", start)
    ended = CliRunner().invoke(app, ["demo"])

    assert ended.stderr == "starting a grid of 2 nodes on this machine\nnot here\n"


def test_make_prints_that_it_installs_packages() -> None:
    """The line comes before the installation, because pip prints nothing about it."""
    command = ["make", "--dry-run", "--what-if=requirements.lock", "demo"]
    message = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert 0 < message.find('echo "installing Python packages into .venv;') < message.find("pip install")
