"""Programs run under `strict` with only the settings that they need, as an ordinary user."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.conftest import RunIsolated

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def report(run_isolated: RunIsolated) -> dict[str, dict[str, str]]:
    """What was wrong with each program, or what is missing for it on this machine."""
    found: dict[str, dict[str, str]] = run_isolated("tests.hostile.strict_run", timeout_s=250, file_size=None)
    return found


def test_programs_run_with_the_settings_that_they_need(report: dict[str, dict[str, str]]) -> None:
    """Scripts, C, QuantLib, ORE, a warm pricer, a JVM, .NET and wine; a job that is refused names the setting."""
    assert {name: found["wrong"] for name, found in report.items() if found.get("wrong")} == {}
    assert len(report) > 10


def test_nothing_is_missing_on_this_machine(report: dict[str, Any]) -> None:
    """Skipped with what is."""
    if missing := {found["missing"] for found in report.values() if "missing" in found}:
        pytest.skip("; ".join(sorted(missing)))
