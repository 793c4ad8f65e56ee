"""A job cannot harm the jobs after it, though they use its sandbox again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.conftest import RunIsolated

pytestmark = pytest.mark.timeout(200)


@pytest.fixture(scope="module")
def ends(run_isolated: RunIsolated) -> dict[str, Any]:
    """What became of the innocent jobs."""
    found: dict[str, Any] = run_isolated("tests.hostile.later_run", timeout_s=150)
    return found


def test_the_next_job_in_a_sandbox_runs_as_in_a_new_one(ends: dict[str, Any]) -> None:
    """It finds nothing that the job before it left, and its directories are its own."""
    later = {name: end for name, end in ends.items() if name != "forged-mark"}
    assert later == {name: ["exited", "well\n", ["own"]] for name in later}


def test_a_job_cannot_charge_its_memory_to_another(ends: dict[str, Any]) -> None:
    """A daemon with the mark of another job counts for the job that started it."""
    assert ends["forged-mark"] == ["exited", "well\n", []]
