"""Submitted jobs, alone or in batches, for blocking code: wait for results, ask for states, cancel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, overload

from raygrid.client.connection import BlockingConnection
from raygrid.client.job_record import BatchRecord, JobRecord
from raygrid.client.result import Result
from raygrid.client.results_stream import STREAM_ERRORS
from raygrid.client.status import BatchStatus, JobStatus
from raygrid.errors import RaygridError
from raygrid.models import JobState


class Job(JobRecord):
    """A job on the grid. Made by `Client.submit`, `Client.map` or `Client.job`.

    Attributes:
        job_id: the job.
        batch: the batch that it was made with, if any.
    """

    def __init__(self, connection: BlockingConnection, job_id: str, batch: BatchJobs | None = None) -> None:
        super().__init__(job_id)
        self.batch = batch
        self._connection = connection

    def result(self, timeout: float | None = None, *, even_if_failed: bool = False) -> Result:
        """Wait until the job has ended and give its result, which is kept in memory until `release`.

        Args:
            timeout: seconds to wait; None for no limit, 0 to ask once.
            even_if_failed: give the files of a failed job instead of raising JobFailedError.

        Raises:
            JobFailedError: the pricer failed, or the job could not be run.
            JobCancelledError: the job was cancelled.
            ResultExpiredError: the result was removed when its retention ended.
            WaitTimeoutError: the job has not ended in time; it goes on.
            JobNotFoundError: the grid has no such job.
        """
        return self._connection.run(self._fetch(self._connection.flows, timeout, even_if_failed=even_if_failed))

    def download(self, path: str | Path, timeout: float | None = None, *, even_if_failed: bool = False) -> Path:
        """Wait for the result and stream its ZIP to `path`, not through memory; errors as `result`."""
        return self._connection.run(self._save(self._connection.flows, path, timeout, even_if_failed=even_if_failed))

    def status(self) -> JobStatus:
        """Ask the grid for the job's state."""
        return self._connection.run(self._connection.flows.status(self.job_id))

    def done(self) -> bool:
        """Whether the job has ended, successfully or not."""
        return self.ending is not None or self.status().state.is_terminal

    def cancel(self) -> JobState:
        """Ask the grid to cancel the job, unless it has ended; gives the state that it was in."""
        return self._connection.run(self._connection.flows.cancel(self.job_id))


class BatchJobs(BatchRecord[Job], Sequence[Job]):
    """The jobs of one batch, in the order of their inputs. Made by `Client.map` or `Client.batch`.

    Attributes:
        batch_id: the batch.
        refused: the jobs that the grid refused, with the error that their `result()` raises.
    """

    def __init__(
        self,
        connection: BlockingConnection,
        batch_id: str,
        job_ids: Iterable[str],
        refused: Mapping[str, RaygridError] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        # Not a lambda: the error for pickling must be the one of the connection.
        super().__init__(connection.flows, batch_id, job_ids, partial(Job, connection, batch=self), refused, names)
        self._connection = connection
        self._order = list(self._jobs.values())

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> list[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | list[Job]:
        return self._order[index]

    def as_completed(self, timeout: float | None = None) -> Iterator[Job]:
        """Give the jobs as they end; jobs whose end is already known come first.

        You may stop iterating and call it again: what was read is kept. Only one thread may iterate at a time.

        Args:
            timeout: seconds for all jobs together; None for no limit.

        Raises:
            WaitTimeoutError: a job has not ended in time.
        """
        deadline = self._deadline(timeout)
        ended, missing = self._split()
        yield from ended
        while missing and not self._stream.complete:
            for job in self._read_stream(deadline):
                if missing.pop(job.job_id, None) is not None:
                    yield job
                if not missing:
                    return
        # A job that was first submitted with another batch may be missing from this batch's stream.
        for job in missing.values():
            self._settle(job, deadline)
            yield job

    @overload
    def results(self, timeout: float | None = None, *, return_errors: Literal[False] = False) -> Iterator[Result]: ...
    @overload
    def results(self, timeout: float | None = None, *, return_errors: bool) -> Iterator[Result | RaygridError]: ...
    def results(self, timeout: float | None = None, *, return_errors: bool = False) -> Iterator[Result | RaygridError]:
        """Give the results in the order of the inputs, each as soon as it and all before it are there.

        Args:
            timeout: seconds for all results together; None for no limit.
            return_errors: give the error of a failed job in place of its result; otherwise the error is raised and ends
                the iteration.

        Raises:
            RaygridError: a job failed, as in `Job.result`; the message names the input by its index and name, the job
                and the batch.
        """
        ended = self.as_completed(timeout)
        for index, job in enumerate(self._order):
            while job.ending is None:
                next(ended)
            yield self._outcome(index, job, return_errors=return_errors)

    def status(self) -> BatchStatus:
        """Ask the grid for the counts of the batch."""
        return self._connection.run(self._connection.flows.batch_status(self.batch_id))

    def cancel(self) -> int:
        """Ask the grid to cancel all jobs of the batch that have not ended; gives their number."""
        return self._connection.run(self._connection.flows.cancel_batch(self.batch_id))

    def _read_stream(self, deadline: float | None) -> Iterator[Job]:
        stream = self._stream
        try:
            with self._connection.stream(stream.call(deadline)) as response:
                stream.opened(response)
                for chunk in self._connection.chunks(response):
                    for part in stream.feed(chunk):
                        yield self._take(part)
            self._connection.pause(stream.closed())
        except STREAM_ERRORS as error:
            self._connection.pause(stream.broken(error))

    def _settle(self, job: Job, deadline: float | None) -> None:
        try:
            job.result(self._remaining_s(deadline))
        except RaygridError:
            if job.ending is None:
                raise
