"""When a job runs again, and the reason and message when it does not."""

from __future__ import annotations

from raygrid.core.group.retry import JobRetryPolicy, exhausted_reason
from raygrid.models import AttemptId, AttemptReport, Outcome

POLICY = JobRetryPolicy(max_attempts=3, retry_exit_codes={"p": frozenset({75})})


def exited(code: int | None, outcome: Outcome = Outcome.EXITED) -> AttemptReport:
    return AttemptReport(AttemptId("j", 1), outcome, code)


def test_a_configured_exit_code_asks_for_another_attempt() -> None:
    """Only that code, of that pricer, of a real exit, and only while an attempt is left."""
    assert POLICY.wants_another("p", exited(75), 1)
    assert POLICY.wants_another("p", exited(75), 2)
    assert not POLICY.wants_another("p", exited(75), 3)
    assert not POLICY.wants_another("p", exited(1), 1)
    assert not POLICY.wants_another("p", exited(75, Outcome.TIMEOUT), 1)
    assert not POLICY.wants_another("other", exited(75), 1)
    assert not JobRetryPolicy().wants_another("p", exited(None), 1)


def test_waits_double_up_to_ten_seconds() -> None:
    """A job that has failed everywhere waits 0.2 s, then twice as long each time, never more than 10 s."""
    assert [POLICY.delay_s(charged) for charged in (1, 2, 3, 4)] == [0.2, 0.4, 0.8, 1.6]
    assert POLICY.delay_s(7) == 10.0
    assert POLICY.delay_s(50) == 10.0


def test_no_job_is_retried_for_ever() -> None:
    """Attempts of any kind end at four times those that count."""
    assert POLICY.hard_limit == 12


def test_a_job_whose_every_node_was_lost_is_called_poison() -> None:
    """The reason names the likely cause and how often it was tried."""
    reason, message = exhausted_reason(exited(None, Outcome.LOST), 3, all_lost=True)
    assert reason == "poison"
    assert "each of 3 attempts" in message


def test_otherwise_the_reason_is_the_last_failure() -> None:
    """The reason is the last outcome, the sentence carries its message."""
    report = AttemptReport(AttemptId("j", 3), Outcome.INFRASTRUCTURE, message="the disk of n1 is full")
    reason, message = exhausted_reason(report, 3, all_lost=False)
    assert (reason, message) == (
        "infrastructure",
        "gave up after 3 attempts; the last one: the disk of n1 is full",
    )
    assert exhausted_reason(exited(None, Outcome.LOST), 2, all_lost=False)[1].endswith("the last one: lost")
