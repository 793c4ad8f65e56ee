"""Jobs in the order in which they end, be they of one batch, of several, or of none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import inf
from time import monotonic

from raygrid.client.jobs import BatchJobs, Job
from raygrid.errors import RaygridError, WaitTimeoutError

_ROUND_S = 1.0
_SHORTEST_WAIT_S = 0.05


def as_completed(jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Job]:
    """Give each job as it ends, well or not; `job.result()` then answers at once.

    Jobs of one batch come over its results stream. Where there are several batches, or jobs without a batch,
    each gets its turn in rounds of about a second, so `map` is the better way to submit many.

    Args:
        jobs: the jobs, of any batches and clients; one that is given twice comes once.
        timeout: seconds for all of them together; None for as long as it takes.

    Raises:
        WaitTimeoutError: some job has not ended in time.
        RaygridError: a job's end cannot be found out, as the grid does not know it or does not answer.
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
    """Give what ends in one batch, or the one job if it ends, while waiting so long."""
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
