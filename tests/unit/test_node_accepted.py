"""The attempts that a node has accepted: a job runs once, and every attempt of it gets an end."""

from __future__ import annotations

import pytest

from raygrid.models import AttemptId, AttemptReport, Outcome
from raygrid.node import accepted as module
from raygrid.node.accepted import AcceptedAttempts
from raygrid.settings.pricer import Pricer
from tests.support.lone_agent import order

PRICERS = {"shell": Pricer(command=("sh",), retry_exit_codes=(75,))}


@pytest.fixture
def accepted() -> AcceptedAttempts:
    return AcceptedAttempts("node-1")


def done(job_id: str, number: int = 1, exit_code: int = 0, outcome: Outcome = Outcome.EXITED) -> AttemptReport:
    return AttemptReport(AttemptId(job_id, number), outcome, exit_code)


def test_attempts_are_taken_in_the_order_in_which_they_came(accepted: AcceptedAttempts) -> None:
    """Each waits until a slot takes it; the node's state lists those that run before those that wait."""
    for job_id in ("a", "b", "c"):
        assert accepted.accept(order(job_id, "true")) is None
    assert accepted.next().attempt == AttemptId("a", 1)
    assert list(accepted.waiting) == [AttemptId("b", 1), AttemptId("c", 1)]
    assert accepted.in_order() == ((AttemptId("a", 1), AttemptId("b", 1), AttemptId("c", 1)), 2)


def test_an_attempt_that_has_begun_cannot_be_taken_back(accepted: AcceptedAttempts) -> None:
    """It may have got its slot after the report that its leader has seen."""
    for job_id in ("runs", "waits"):
        accepted.accept(order(job_id, "true"))
    accepted.next()
    both = [AttemptId("runs", 1), AttemptId("waits", 1), AttemptId("unknown", 1)]
    assert accepted.not_begun(both) == [AttemptId("waits", 1)]


def test_a_second_attempt_of_a_job_shares_the_end_of_the_first(accepted: AcceptedAttempts) -> None:
    """The job runs once, and each of its attempts is reported."""
    accepted.accept(order("a", "true", 1))
    assert accepted.accept(order("a", "true", 2)) is None
    assert list(accepted.waiting) == [AttemptId("a", 1)]
    assert [report.attempt.number for report in accepted.end(done("a"), PRICERS)] == [1, 2]
    assert accepted.by_job == {}


def test_a_further_attempt_of_a_job_that_has_ended_gets_its_answer(accepted: AcceptedAttempts) -> None:
    """It does not run again."""
    accepted.end(done("a"), PRICERS)
    answer = accepted.accept(order("a", "true", 2))
    assert answer == done("a", 2)
    assert not accepted.waiting


@pytest.mark.parametrize(
    "ended",
    [done("a", outcome=Outcome.INFRASTRUCTURE), done("a", outcome=Outcome.CANCELLED), done("a", exit_code=75)],
    ids=["infrastructure", "cancelled", "retried-exit-code"],
)
def test_an_end_that_leads_to_another_run_is_no_answer(accepted: AcceptedAttempts, ended: AttemptReport) -> None:
    """The next attempt of the job has to run."""
    accepted.end(ended, PRICERS)
    assert accepted.accept(order("a", "true", 2)) is None
    assert list(accepted.waiting) == [AttemptId("a", 2)]


def test_a_stopped_attempt_is_gone_killed_or_still_needed(accepted: AcceptedAttempts) -> None:
    """One that waits is dropped, one that runs must be killed, and one that another attempt shares goes on."""
    for job_id in ("runs", "shared", "waits"):
        accepted.accept(order(job_id, "true"))
    accepted.accept(order("shared", "true", 2))
    accepted.next()
    accepted.next()
    stopped = [AttemptId(job_id, 1) for job_id in ("runs", "shared", "waits", "unknown")]
    assert accepted.stop(stopped) == ([AttemptId("waits", 1)], [AttemptId("runs", 1)])
    assert accepted.stop([AttemptId("shared", 2)]) == ([], [AttemptId("shared", 1)])


def test_a_node_accepts_a_bounded_number_of_attempts(
    accepted: AcceptedAttempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond that, an attempt is reported as infrastructure, so that it runs elsewhere."""
    monkeypatch.setattr(module, "MOST_WAITING", 1)
    accepted.accept(order("a", "true"))
    refused = accepted.accept(order("b", "true"))
    assert isinstance(refused, AttemptReport)
    assert refused.outcome is Outcome.INFRASTRUCTURE
    assert "node-1 refuses the attempt: 1 attempts are waiting" in (refused.message or "")
    assert list(accepted.by_job) == ["a"]
