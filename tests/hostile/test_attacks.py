"""What attacks of a pricer reach in a grid: without a sandbox much, under `protect` and `strict` next to nothing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.conftest import RunIsolated
from tests.hostile.eighteen import EIGHTEEN
from tests.hostile.expectations import (
    MOST_OF_EIGHTEEN_UNDER_STRICT,
    OFF_ALLOWS,
    OFF_REFUSES,
    PROTECT_ALLOWS,
    STRICT_ALLOWS,
    allowed,
    why_no_sandboxes,
)
from tests.hostile.tables import attack_table
from tests.run import LOGS

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def report(run_isolated: RunIsolated) -> dict[str, Any]:
    """What the attacks reached in a grid, by sandbox; the table is kept with the logs of the tests."""
    if (reason := why_no_sandboxes()) is not None:
        pytest.skip(reason)
    found: dict[str, Any] = run_isolated("tests.hostile.attack_run", timeout_s=500)
    LOGS.mkdir(exist_ok=True)
    (LOGS / "attacks.txt").write_text(f"{attack_table(found)}\n", encoding="utf-8")
    return found


def succeeded(report: dict[str, Any], sandbox: str) -> dict[str, str]:
    """The attacks that succeeded, with what they reached."""
    return {line["attack"]: line["detail"] for line in report[sandbox]["attacks"] if line["succeeded"]}


def test_the_attacks_are_real(report: dict[str, Any]) -> None:
    """Under `off` they reach the grid and the other job, so that it is the sandbox that refuses them otherwise."""
    assert set(OFF_ALLOWS) - succeeded(report, "off").keys() == set()


def test_without_a_sandbox_the_tiers_protect_themselves(report: dict[str, Any]) -> None:
    """Even under `off` agents, leaders and parents cannot be read, and no call works without token or key."""
    assert set(OFF_REFUSES) & succeeded(report, "off").keys() == set()


@pytest.mark.parametrize(("sandbox", "allows"), [("protect", PROTECT_ALLOWS), ("strict", STRICT_ALLOWS)])
def test_nothing_reaches_the_grid_or_another_job(report: dict[str, Any], sandbox: str, allows: dict[str, str]) -> None:
    """Only attacks that reach neither succeed, each for a reason that is documented."""
    reached = {name: what for name, what in succeeded(report, sandbox).items() if not allowed(name, allows)}
    assert reached == {}


def test_all_attacks_were_tried(report: dict[str, Any]) -> None:
    """An attack that is not tried is not refused; only what a machine lacks may be missing."""
    untried = {
        (sandbox, line["attack"]): line["detail"]
        for sandbox, each in report.items()
        for line in each["attacks"]
        if line["succeeded"] is None
    }
    excused = ("there is none", "has the lowest priority already", "has one processor already", "no x86_64")
    assert {each: why for each, why in untried.items() if not any(text in why for text in excused)} == {}


def test_at_most_three_of_the_eighteen_succeed_under_strict(report: dict[str, Any]) -> None:
    """The others are refused: these three do not leave the sandbox."""
    found = succeeded(report, "strict").keys() & EIGHTEEN.keys()
    assert len(found) <= MOST_OF_EIGHTEEN_UNDER_STRICT, found


def test_the_other_job_was_not_harmed(report: dict[str, Any]) -> None:
    """It ended by itself with its own result, under every sandbox."""
    assert {sandbox: each["victim"] for sandbox, each in report.items()} == dict.fromkeys(report, True)
