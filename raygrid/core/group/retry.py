"""When a job runs again, and the messages when it does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from raygrid.models import AttemptReport, Outcome


@dataclass(frozen=True, slots=True)
class JobRetryPolicy:
    """Limits of running a job again.

    Attributes:
        max_attempts: limit of charged attempts: infrastructure failures, and ends with a retried exit code.
        retry_exit_codes: by pricer, the exit codes that lead to another attempt.
    """

    max_attempts: int = 3
    retry_exit_codes: Mapping[str, frozenset[int]] = field(default_factory=dict)

    @property
    def hard_limit(self) -> int:
        """Limit of attempts of any kind; a job fails when it is reached."""
        return 4 * self.max_attempts

    def wants_another(self, pricer: str, report: AttemptReport, charged: int) -> bool:
        """Whether the exit code leads to another attempt, and one is left."""
        codes = self.retry_exit_codes.get(pricer, frozenset())
        return report.outcome is Outcome.EXITED and report.exit_code in codes and charged < self.max_attempts

    def delay_s(self, charged: int) -> float:
        """Seconds to wait before the next attempt of a job that has failed on every node."""
        return float(min(0.2 * 2 ** (charged - 1), 10.0))


def exhausted_reason(report: AttemptReport, charged: int, *, all_lost: bool) -> tuple[str, str]:
    """The reason and the message of a job without attempts left."""
    if all_lost and charged > 1:
        return (
            "poison",
            f"its node was lost in each of {charged} attempts; the job itself is the likely cause. Make the pricer "
            "signal only processes that it has started itself (after a failed fork, kill(pid) becomes `kill -9 -1`), "
            "then submit the job again under another id",
        )
    last = report.message or report.outcome.value
    return report.outcome.value, f"gave up after {charged} attempts; the last one: {last}"


def too_large_message(report: AttemptReport, pricer: str, node_id: str) -> str:
    """The message of a job that ran out of memory while it was alone on its node; the report has its size."""
    return (
        f"the job does not fit into the memory of node {node_id}, even without other jobs there: {report.message}. "
        f"Run it on a machine with more memory, or make it smaller; a `memory:` limit on pricer {pricer!r} ends such "
        "jobs before their node is short of memory"
    )
