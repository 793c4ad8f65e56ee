"""Runs the programs of these tests in namespaces of their own, and skips with a reason where that cannot be done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.hostile.isolation import LARGEST_FILE, environment, free_user, isolated, processes_of, why_not

RunIsolated = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the measurement come last, when other rows of tests have ended."""
    items.sort(key=lambda item: item.path.name == "test_beside_hostile.py")


@pytest.fixture(scope="session")
def run_isolated() -> RunIsolated:
    """Runs a module of these tests as a user of its own; gives the JSON that it has printed."""
    if (reason := why_not()) is not None:
        if os.environ.get("CI"):
            pytest.fail(f"{reason}; CI must be able to isolate hostile programs, because skips are not noticed")
        pytest.skip(reason)

    def run(module: str, *words: str, timeout_s: float, file_size: int | None = LARGEST_FILE) -> Any:
        user = free_user()
        program = [sys.executable, "-m", module, *words]
        command = isolated(program, user=user, timeout_s=timeout_s, file_size=file_size)
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr[-6000:]}\n{done.stdout[-2000:]}"
        assert processes_of(user) == []
        return json.loads(done.stdout)

    return run
