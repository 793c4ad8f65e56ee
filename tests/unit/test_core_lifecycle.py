"""The table of legal moves, and how an attempt's own answer ends its job."""

from __future__ import annotations

import pytest

from raygrid.core.lifecycle import MOVES, TERMINAL, failure_reason, final_state
from raygrid.models import INFRASTRUCTURE_OUTCOMES, AttemptId, AttemptReport, JobState, Outcome

QUEUED, RUNNING, DONE, FAILED, CANCELLED = JobState


def test_every_state_has_its_moves() -> None:
    """The table names each public state, and no other."""
    assert set(MOVES) == set(JobState)


@pytest.mark.parametrize("after", JobState)
def test_ends_are_final(after: JobState) -> None:
    """No move leads out of an end, not even to itself."""
    assert not any(after in MOVES[before] for before in (DONE, FAILED, CANCELLED))


def test_the_ends_are_the_terminal_states() -> None:
    """The table and `JobState.is_terminal` agree."""
    assert {state for state in JobState if state.is_terminal} == TERMINAL == {DONE, FAILED, CANCELLED}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (QUEUED, QUEUED),
        (QUEUED, RUNNING),
        (QUEUED, DONE),
        (QUEUED, FAILED),
        (QUEUED, CANCELLED),
        (RUNNING, QUEUED),
        (RUNNING, RUNNING),
        (RUNNING, DONE),
        (RUNNING, FAILED),
        (RUNNING, CANCELLED),
    ],
)
def test_the_unfinished_may_move(before: JobState, after: JobState) -> None:
    """A waiting job starts, waits anew or ends; a running one goes back, starts again or ends."""
    assert after in MOVES[before]


@pytest.mark.parametrize(
    ("outcome", "exit_code", "state", "reason"),
    [
        (Outcome.EXITED, 0, DONE, None),
        (Outcome.EXITED, 1, FAILED, "exit_code"),
        (Outcome.EXITED, None, FAILED, "exit_code"),
        (Outcome.SIGNAL, None, FAILED, "signal"),
        (Outcome.TIMEOUT, None, FAILED, "timeout"),
        (Outcome.MEMORY_LIMIT, None, FAILED, "memory_limit"),
        (Outcome.OUTPUT_LIMIT, None, FAILED, "output_limit"),
        (Outcome.PROCESS_LIMIT, None, FAILED, "process_limit"),
        (Outcome.BAD_OUTPUT, 0, FAILED, "bad_output"),
        (Outcome.MISSING_OUTPUT, 0, FAILED, "missing_output"),
        (Outcome.CANCELLED, None, CANCELLED, "cancelled"),
    ],
)
def test_an_answer_ends_its_job(outcome: Outcome, exit_code: int | None, state: JobState, reason: str | None) -> None:
    """Only a clean exit is done; everything else fails with a stable word, and a requested kill cancels."""
    report = AttemptReport(AttemptId("j", 1), outcome, exit_code)
    assert (final_state(report), failure_reason(report)) == (state, reason)


def test_reasons_fit_their_column() -> None:
    """No outcome's word is longer than the store's column for reasons."""
    assert max(len(outcome.value) for outcome in Outcome) <= 32


def test_only_failures_of_the_grid_lead_to_another_attempt() -> None:
    """Exactly the grid's own failures lead to another attempt."""
    assert {
        Outcome.CANNOT_START,
        Outcome.INFRASTRUCTURE,
        Outcome.INPUT_LOST,
        Outcome.DEFINITION_LOST,
        Outcome.DISK_FULL,
        Outcome.LOST,
        Outcome.MEMORY_PRESSURE,
    } == INFRASTRUCTURE_OUTCOMES
