"""The states of a job: the legal transitions, and the state and reason that an attempt's end leads to."""

from __future__ import annotations

from raygrid.models import AttemptReport, JobState, Outcome

MOVES: dict[JobState, frozenset[JobState]] = {
    # A queued job starts, is cancelled before it starts, or fails without a node (poison found at recovery). It stays
    # queued, with new counts, if it waited for a slot on a node that was lost. It may jump to a terminal state, because
    # the start and end of a short job are written together.
    JobState.QUEUED: frozenset({JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED, JobState.FAILED, JobState.DONE}),
    # A running job ends, returns to the queue when its attempt was lost, or starts its next attempt.
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.RUNNING, JobState.DONE, JobState.FAILED, JobState.CANCELLED}
    ),
    # Terminal states are final.
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

TERMINAL = frozenset(state for state, moves in MOVES.items() if not moves)


def final_state(report: AttemptReport) -> JobState:
    """The terminal state that an attempt's outcome gives its job; not for infrastructure outcomes."""
    if report.outcome is Outcome.CANCELLED:
        return JobState.CANCELLED
    if report.outcome is Outcome.EXITED and report.exit_code == 0:
        return JobState.DONE
    return JobState.FAILED


def failure_reason(report: AttemptReport) -> str | None:
    """The machine-readable reason why a job is not done; None if it is."""
    if report.outcome is Outcome.EXITED:
        return None if report.exit_code == 0 else "exit_code"
    return report.outcome.value
