"""The unit tests of sandboxes, as an ordinary user whose agents live in a user namespace; elsewhere root runs them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.hostile.isolation import HOME, REPOSITORY, environment, free_user, isolated, why_not

TESTS = sorted(
    path
    for name in ("attempts", "jobs", "mechanisms", "threads", "view")
    for path in (REPOSITORY / "tests" / "unit").glob(f"test_node_sandbox_{name}.py")
)
# As a supervisor does it before it starts Ray.
INSIDE = f"""
import pathlib, sys
from raygrid.system.user_namespace import enter
assert enter(pathlib.Path("{HOME}")) is None
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def test_sandboxes_hold_in_a_user_namespace() -> None:
    """Every claim that holds for root's grid holds for that of an ordinary user; none is skipped."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", str(REPOSITORY), "-c", str(REPOSITORY / "pyproject.toml")]
    command = isolated([sys.executable, "-c", INSIDE, *options, *map(str, TESTS)], user=free_user(), timeout_s=240)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " skipped" not in done.stdout, done.stdout[-3000:]
