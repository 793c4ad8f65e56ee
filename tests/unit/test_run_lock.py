"""The packages of a cluster's machines: pinned with hashes, in the versions with which the tests run."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2]
_PACKAGE = re.compile(r"^([a-z0-9._-]+)==(\S+)[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}[ \\]*)*)", re.MULTILINE)


def packages(name: str) -> dict[str, tuple[str, bool]]:
    """Each package of a lock file: its version, and whether it has hashes."""
    text = (PROJECT / name).read_text()
    return {package: (version, bool(hashes)) for package, version, hashes in _PACKAGE.findall(text)}


def test_what_machines_install_is_what_was_tested() -> None:
    """Every package has hashes and the version of requirements.lock, and none for tests is among them."""
    run, tested = packages("requirements-run.lock"), packages("requirements.lock")
    assert len(run) > 50
    assert {name: found for name, found in run.items() if not found[1] or tested.get(name) != found} == {}
    assert not run.keys() & {"pytest", "mypy", "ruff", "hypothesis"}


def test_machines_install_all_that_raygrid_needs() -> None:
    """Its own requirements, and the driver of PostgreSQL."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["postgres"]]
    names = {re.split(r"[\[<>=;]", each)[0].lower().replace("_", "-") for each in needed}
    assert names <= packages("requirements-run.lock").keys()
