"""No secret of a grid can be read where a pricer can look."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.conftest import RunIsolated

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def report(run_isolated: RunIsolated) -> dict[str, Any]:
    """Where which secret was found."""
    found: dict[str, Any] = run_isolated("tests.hostile.secrets_run", timeout_s=350)
    return found


def test_no_process_carries_the_token_or_a_key_in_sight(report: dict[str, Any]) -> None:
    """Neither in its environment nor on its command line, Ray's own processes included."""
    assert [each for each in report["outside"] if each[0] != "credential"] == []


def test_tiers_cannot_be_read_by_their_user(report: dict[str, Any]) -> None:
    """Neither memory, environment nor descriptors of agent, leader, parent and supervisor."""
    assert report["tiers"] == {"agent": False, "leader": False, "parent": False, "supervisor": False}


def test_a_pricer_in_a_sandbox_finds_no_secret(report: dict[str, Any]) -> None:
    """Without a sandbox it finds the token and the key in files, which shows that it looks well."""
    assert {name for name, _ in report["off"]} >= {"token", "key"}
    assert report["protect"] == []
    assert report["strict"] == []
