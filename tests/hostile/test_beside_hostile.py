"""Good jobs beside hostile ones: all are done, none waits much longer, and nothing is left behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.conftest import RunIsolated
from tests.hostile.expectations import why_no_sandboxes
from tests.hostile.tables import beside_table
from tests.run import LOGS

pytestmark = pytest.mark.timeout(300)
MOST_TIMES_THE_USUAL_WAIT = 2.0


@pytest.fixture(scope="module")
def report(run_isolated: RunIsolated) -> dict[str, Any]:
    """What became of both; the table is kept with the logs of the tests."""
    if (reason := why_no_sandboxes()) is not None:
        pytest.skip(reason)
    found: dict[str, Any] = run_isolated("tests.hostile.hostile_run", timeout_s=250)
    LOGS.mkdir(exist_ok=True)
    (LOGS / "beside_hostile.txt").write_text(f"{beside_table(found)}\n", encoding="utf-8")
    return found


def test_all_good_jobs_are_done(report: dict[str, Any]) -> None:
    """Each with its own output, at its first attempt, on the agent from before."""
    assert report["wrong"] == []
    assert report["beside"]["again"] == 0
    assert report["same_processes"]


def test_no_good_job_waits_twice_as_long_as_usual(report: dict[str, Any]) -> None:
    """Compared with the job at the same place in a run without hostile jobs."""
    assert report["worst"] <= MOST_TIMES_THE_USUAL_WAIT, report


def test_memory_in_another_session_is_limited(report: dict[str, Any]) -> None:
    """600 MB in a daemon of its own session end a job whose limit is 200 MB."""
    reasons = {reason for name, _, reason, _ in report["hostile"] if name.startswith("memory-in-another-session")}
    assert reasons == {"memory_limit"}


def test_nothing_is_left_after_the_grid(report: dict[str, Any]) -> None:
    """No process, mount, socket, file in a shared directory, nor System V memory."""
    assert report["left"] == []
