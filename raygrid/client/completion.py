"""Jobs of any batches, or of none, in the order in which they end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from time import monotonic

from raygrid.client.jobs import BatchJobs, Job
from raygrid.errors import RaygridError, WaitTimeoutError

_ROUND_S = 1.0
_SHORTEST_WAIT_S = 0.05


def as_completed(jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Job]:
    """Give each job as it ends, successfully or not; `job.result()` then needs no request.

    Jobs of one batch come over its results stream. Several batches, and jobs without a batch, are polled one after the
    other in rounds of about a second, so submit many jobs with `map`.

    Args:
        jobs: the jobs, of any batches and clients; a job that is given twice comes once.
        timeout: seconds for all jobs together; None for no limit.

    Raises:
        WaitTimeoutError: a job has not ended in time.
        RaygridError: the grid does not know a job, or does not answer.
    """
    pending = dict.fromkeys(jobs)
    if not pending:
        return
    deadline = inf if timeout is None else monotonic() + timeout
    for job in [job for job in pending if job.ending is not None]:
        del pending[job]
        yield job
    while pending:
        sources: dict[BatchJobs | Job, None] = dict.fromkeys(_source(job) for job in pending)
        remaining = deadline - monotonic()
        if remaining <= 0:
            raise WaitTimeoutError(f"{len(pending)} jobs have not ended within {timeout:g} s; they go on, wait again")
        wait_s = min(remaining, inf if len(sources) == 1 else max(_SHORTEST_WAIT_S, _ROUND_S / len(sources)))
        for source in sources:
            for job in _ended_of(source, None if wait_s == inf else wait_s):
                if job in pending:
                    del pending[job]
                    yield job
                if not any(_source(other) is source for other in pending):
                    break


def _source(job: Job) -> BatchJobs | Job:
    return job if job.batch is None else job.batch


def _ended_of(source: BatchJobs | Job, wait_s: float | None) -> Iterator[Job]:
    """Wait up to `wait_s` for jobs of a batch, or for one job, and give those that end."""
    if isinstance(source, BatchJobs):
        try:
            yield from source.as_completed(wait_s)
        except WaitTimeoutError:
            return
    else:
        try:
            source.result(wait_s)
        except WaitTimeoutError:
            return
        except RaygridError:
            if source.ending is None:
                raise
        yield source
