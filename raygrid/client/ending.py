"""How a job ended: with a result, an error, or, if a pricer failed, both."""

from __future__ import annotations

from dataclasses import dataclass

from raygrid.client.failure import job_failed
from raygrid.client.multipart import ResultPart
from raygrid.client.result import Result
from raygrid.errors import (
    PROBLEM_PREFIX,
    DamagedResultError,
    JobCancelledError,
    JobFailedError,
    RaygridError,
    ResultExpiredError,
)
from raygrid.models import JobState

_TAIL = 4096
DAMAGED = f"{PROBLEM_PREFIX}damaged-result"

# After these errors the grid gives the same answer again.
FINAL_ERRORS = (JobFailedError, JobCancelledError, ResultExpiredError, DamagedResultError)


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a job; at least one of the two fields is set."""

    result: Result | None = None
    error: RaygridError | None = None

    def get(self, *, even_if_failed: bool = False) -> Result:
        """Give the result or raise the error."""
        if self.result is not None and (self.error is None or even_if_failed):
            return self.result
        if self.error is None:
            raise AssertionError("an ending has a result or an error")
        raise self.error


def ending_of(part: ResultPart) -> Ending:
    """Read the end of a job from its part of the results stream."""
    result = Result(part.job_id, part.body, part.reused_from) if part.body else None
    if part.state is JobState.CANCELLED:
        message = part.message or f"job {part.job_id} was cancelled, so it has no result"
        return Ending(error=JobCancelledError(message))
    if part.state is JobState.FAILED:
        return Ending(
            result=result,
            error=job_failed(
                part.message or f"job {part.job_id} failed ({part.reason or 'no reason given'})",
                job_id=part.job_id,
                reason=part.reason,
                exit_code=part.exit_code,
                stderr_tail=result.stderr[-_TAIL:] if result else None,
                text=f"job {part.job_id} failed: {part.message}" if part.message else None,
                has_result=result is not None,
            ),
        )
    if result is None or part.problem is not None:
        message = part.problem_detail or f"the result of job {part.job_id} was removed when its retention ended"
        kind = DamagedResultError if part.problem == DAMAGED else ResultExpiredError
        return Ending(error=kind(message))
    return Ending(result=result)
