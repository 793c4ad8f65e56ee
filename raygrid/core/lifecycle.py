"""The life of a job: the only legal moves between its states, in one table."""

from __future__ import annotations

from raygrid.models import AttemptReport, JobState, Outcome

MOVES: dict[JobState, frozenset[JobState]] = {
    # A queued job starts, is cancelled before it starts, or fails without a node (poison found at recovery). It is
    # queued anew, with other counts, where it waited for a slot on a node that was lost.
    JobState.QUEUED: frozenset({JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED, JobState.FAILED, JobState.DONE}),
    # A running one ends, goes back to the queue when its attempt was lost, or starts again (a next attempt).
    # A queued job may jump to an end, because a fast job's start and end are written together.
    JobState.RUNNING: frozenset(
        {JobState.QUEUED, JobState.RUNNING, JobState.DONE, JobState.FAILED, JobState.CANCELLED}
    ),
    # Ends are final.
    JobState.DONE: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

TERMINAL = frozenset(state for state, moves in MOVES.items() if not moves)


def is_legal(before: JobState, after: JobState) -> bool:
    """Whether a job may move from one state to the other."""
    return after in MOVES[before]


def final_state(report: AttemptReport) -> JobState:
    """The state in which an attempt's own answer ends its job; not for infrastructure outcomes."""
    if report.outcome is Outcome.CANCELLED:
        return JobState.CANCELLED
    if report.outcome is Outcome.EXITED and report.exit_code == 0:
        return JobState.DONE
    return JobState.FAILED


def failure_reason(report: AttemptReport) -> str | None:
    """The stable word for why a job did not end as done; None where it did."""
    if report.outcome is Outcome.EXITED:
        return None if report.exit_code == 0 else "exit_code"
    return report.outcome.value
