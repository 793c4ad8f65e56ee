"""Hostile programs refuse to run outside of the namespaces that hold them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.hostile.conftest import RunIsolated
from tests.hostile.isolation import REPOSITORY

HERE = Path(__file__).parent
PROGRAMS = sorted(
    f"tests.hostile.{'.'.join(path.relative_to(HERE).with_suffix('').parts)}"
    for path in HERE.rglob("*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
    and path not in (Path(__file__), HERE / "__main__.py")  # which isolates what it runs
)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_hostile_program_refuses_to_run_here(program: str) -> None:
    """As root, and as any user of the machine itself, it ends with the reason before it has done anything."""
    done = subprocess.run(
        [sys.executable, "-m", program, "/nonexistent"], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 1
    assert "a hostile program" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_the_machine_is_reached_from_inside(run_isolated: RunIsolated) -> None:
    """Inside there are no other processes, no files of other users in /tmp, and no network but loopback."""
    seen = run_isolated("tests.hostile.surroundings", timeout_s=60)
    assert seen["user"] not in (0, 65534)
    assert seen["processes"] == [1, *seen["own"]]
    assert seen["interfaces"] == ["lo"]
    assert seen["shared"] == []
    assert seen["capabilities"] == "0" * 16
