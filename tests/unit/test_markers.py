"""Markers decide which row of `make test` a test belongs to; some are checked against what a module does."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path

import pytest

from tests.conftest import pytest_collection_modifyitems

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
# Each of these starts a grid on real Ray, or uses one that was started; in unit tests they only fail.
START_RAY = {"start_grid", "running_grid", "Reader"}


def markers_of(tree: ast.Module) -> set[str]:
    """The names of the markers in a module's `pytestmark`."""
    return {
        inner.attr
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        for inner in ast.walk(node.value)
        if isinstance(inner, ast.Attribute)
    }


def imported_names(tree: ast.Module) -> set[str]:
    return {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names if node.module
    }


@pytest.mark.parametrize("path", sorted((TESTS / "integration").glob("test_*.py")), ids=lambda path: path.stem)
def test_a_module_that_starts_ray_is_marked(path: Path) -> None:
    """What it imports or its name shows it; the fixtures of the shared grid mark the tests that use them."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if START_RAY & imported_names(tree) or (path.name.startswith("test_ray_") and "ray_grid" not in text):
        assert {"own_grid", "documents"} & markers_of(tree)


def test_a_test_belongs_to_one_row(request: pytest.FixtureRequest) -> None:
    """A marker outside the directory of its row, or a second one, is an error of the test run."""
    request.node.add_marker("computing")
    pytest_collection_modifyitems([request.node])
    request.node.add_marker("ray")
    with pytest.raises(pytest.UsageError, match="markers of several rows: ray, computing"):
        pytest_collection_modifyitems([request.node])


def test_a_test_lies_in_the_directory_of_its_row(request: pytest.FixtureRequest) -> None:
    """Its row would not run it elsewhere, which is an error of the test run, too."""
    request.node.add_marker("leases")
    with pytest.raises(pytest.UsageError, match="has the marker leases: move it to tests/integration"):
        pytest_collection_modifyitems([request.node])


def test_help_lists_every_command() -> None:
    """`make help` shows each target that is meant to be typed, in the order of the Makefile, with a text."""
    make_help = ["make", "--no-print-directory", "help"]  # a make within `make test` would print the directory
    shown = subprocess.run(make_help, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    [phony] = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith(".PHONY:")]
    assert [line.split()[1] for line in shown] == phony.split()[1:]
    assert all(len(line.split()) > 3 for line in shown)
