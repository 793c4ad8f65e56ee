"""Ordinary programs run unchanged under the default sandbox, as an ordinary user, without any setting."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.conftest import RunIsolated

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def report(run_isolated: RunIsolated) -> dict[str, dict[str, str]]:
    """What was wrong with each program, or what is missing for it on this machine."""
    found: dict[str, dict[str, str]] = run_isolated("tests.hostile.ordinary_run", timeout_s=350, file_size=None)
    return found


def test_programs_run_unchanged(report: dict[str, dict[str, str]]) -> None:
    """Scripts, QuantLib, and the first start of .NET, a JVM and wine in an empty home directory; 200 jobs of wine."""
    assert {name: found["wrong"] for name, found in report.items() if found.get("wrong")} == {}
    assert len(report) > 10


def test_nothing_is_missing_on_this_machine(report: dict[str, Any]) -> None:
    """Skipped with what is."""
    if missing := {found["missing"] for found in report.values() if "missing" in found}:
        pytest.skip("; ".join(sorted(missing)))
