"""Programs that exceed the limits of memory and processes in ways that leave the pricer's session and ancestry."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.conftest import RunIsolated
from tests.hostile.limits_run import PROGRAMS

pytestmark = pytest.mark.timeout(200)
UNCERTAIN = ("uncertain origin", "unreadable origin")
OTHERS = ("shared pages", "memory in semaphores", "segments that it leaves", *UNCERTAIN)


@pytest.fixture(scope="module", params=["off", "protect"])
def ended(run_isolated: RunIsolated, request: pytest.FixtureRequest) -> dict[str, Any]:
    """How each program ended."""
    found: dict[str, Any] = run_isolated("tests.hostile.limits_run", request.param, timeout_s=180)
    return found


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in OTHERS])
def test_a_program_that_exceeds_a_limit_is_killed_with_all_that_it_started(ended: dict[str, Any], name: str) -> None:
    """The reason names the limit, nothing of it is left 2 seconds later, and a job beside it is done."""
    report = ended[name]
    assert report["outcome"] == ("memory_limit" if "memory" in name or "daemon" in name else "process_limit"), report
    assert report["left"] == []
    assert report["segments"] == 0
    assert report["good"] == "good\n"


def test_pages_that_processes_share_count_once(ended: dict[str, Any]) -> None:
    """Six processes with the same 100 MB stay below a limit of 200 MB."""
    assert (ended["shared pages"]["outcome"], ended["shared pages"]["exit_code"]) == ("exited", 7)


def test_semaphores_count_in_a_sandbox(ended: dict[str, Any], request: pytest.FixtureRequest) -> None:
    """They are the kernel's memory. Without a namespace nothing shows whose they are; that is documented."""
    report = ended["memory in semaphores"]
    sandboxed = "protect" in request.node.callspec.id
    assert (report["outcome"], report["exit_code"]) == (("memory_limit", None) if sandboxed else ("exited", 7)), report


def test_shared_memory_that_a_job_leaves_is_removed(ended: dict[str, Any]) -> None:
    """System V segments outlive their processes; 2 seconds after the job none is left."""
    report = ended["segments that it leaves"]
    assert (report["outcome"], report["exit_code"], report["segments"]) == ("exited", 7, 0), report


@pytest.mark.parametrize("name", UNCERTAIN)
def test_a_daemon_that_several_jobs_may_have_started_is_killed_at_its_limit(ended: dict[str, Any], name: str) -> None:
    """No job fails for it; if its origin is certain after all, its job has exceeded its limit."""
    report = ended[name]
    assert (report["outcome"], report["exit_code"]) in [("exited", 7), ("memory_limit", None)], report
    assert report["left"] == []
    assert report["segments"] == 0
    assert report["good"] == "good\n"
