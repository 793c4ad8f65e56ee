"""Submitted jobs, alone or in batches, for blocking code: wait for results, ask for states, cancel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, overload

from raygrid.client.connection import BlockingConnection
from raygrid.client.ending import Ending, ending_of
from raygrid.client.failure import placed
from raygrid.client.job_record import JobRecord
from raygrid.client.multipart import Part
from raygrid.client.result import Result
from raygrid.client.results_stream import STREAM_ERRORS, ResultsStream
from raygrid.client.status import BatchStatus, JobStatus
from raygrid.errors import RaygridError
from raygrid.models import JobState


class Job(JobRecord):
    """A job on the grid. Made by `Client.submit`, `Client.map` or `Client.job`.

    Attributes:
        job_id: the job.
        batch: the batch that it came with, if any.
    """

    def __init__(self, connection: BlockingConnection, job_id: str, batch: BatchJobs | None = None) -> None:
        super().__init__(job_id)
        self.batch = batch
        self._connection = connection

    def result(self, timeout: float | None = None, *, even_if_failed: bool = False) -> Result:
        """Wait until the job has ended and give its result, which is kept.

        Args:
            timeout: seconds to wait; None for as long as it takes, 0 to ask once.
            even_if_failed: give what a failed job left behind instead of raising JobFailedError.

        Raises:
            JobFailedError: the pricer answered with a failure, or the job could not be run.
            JobCancelledError: the job was cancelled.
            ResultExpiredError: the result was removed when its retention ended.
            WaitTimeoutError: the job has not ended in time; it goes on.
            JobNotFoundError: the grid has no such job.
        """
        ending = self.known(even_if_failed=even_if_failed)
        if ending is not None:
            return ending.get(even_if_failed=even_if_failed)
        flow = self._connection.flows.result(self.job_id, timeout_s=timeout, even_if_failed=even_if_failed)
        try:
            result = self._connection.run(flow)
        except RaygridError as error:
            self.remember_error(error)
            raise
        self.remember_result(result, even_if_failed=even_if_failed)
        return result

    def download(self, path: str | Path, timeout: float | None = None, *, even_if_failed: bool = False) -> Path:
        """Wait for the result and stream its ZIP to `path`, not through memory; errors as `result`."""
        path = Path(path)
        flow = self._connection.flows.result(
            self.job_id, timeout_s=timeout, even_if_failed=even_if_failed, save_to=path
        )
        self._connection.run(flow)
        return path

    def status(self) -> JobStatus:
        """Ask the grid how the job is doing."""
        return self._connection.run(self._connection.flows.status(self.job_id))

    def done(self) -> bool:
        """Whether the job has ended, be it well or not."""
        return self.ending is not None or self.status().state.is_terminal

    def cancel(self) -> JobState:
        """Ask the grid to cancel the job; gives the state it was in. A job that has ended stays as it is."""
        return self._connection.run(self._connection.flows.cancel(self.job_id))


class BatchJobs(Sequence[Job]):
    """The jobs of one batch, in the order of their inputs. Made by `Client.map` or `Client.batch`.

    Attributes:
        batch_id: the batch.
        refused: jobs that the grid did not take, and why; their `result()` raises it.
    """

    def __init__(
        self,
        connection: BlockingConnection,
        batch_id: str,
        job_ids: Iterable[str],
        refused: Mapping[str, RaygridError] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.batch_id = batch_id
        self.refused = dict(refused or {})
        self._names = names or {}
        self._connection = connection
        self._jobs = {job_id: Job(connection, job_id, self) for job_id in job_ids}
        self._order = list(self._jobs.values())
        self._stream = ResultsStream(connection.flows.endpoint, batch_id)
        for job_id, error in self.refused.items():
            self._jobs[job_id].ending = Ending(error=error)

    @overload
    def __getitem__(self, index: int) -> Job: ...
    @overload
    def __getitem__(self, index: slice) -> list[Job]: ...
    def __getitem__(self, index: int | slice) -> Job | list[Job]:
        return self._order[index]

    def __len__(self) -> int:
        return len(self._order)

    def as_completed(self, timeout: float | None = None) -> Iterator[Job]:
        """Give the jobs as they end; those whose end is known already come first.

        May be left and called again: what was read stays read. One thread at a time.

        Args:
            timeout: seconds for all of them together; None for as long as it takes.

        Raises:
            WaitTimeoutError: some job has not ended in time.
        """
        clock = self._connection.flows.endpoint.retry.clock
        deadline = None if timeout is None else clock() + timeout
        missing = {job.job_id for job in self._order if job.ending is None}
        yield from [job for job in self._order if job.ending is not None]
        while missing and not self._stream.complete:
            for job in self._read_stream(deadline):
                if job.job_id in missing:
                    missing.remove(job.job_id)
                    yield job
                if not missing:
                    return
        # A job that another batch had submitted before may be no part of this batch's stream.
        for job in self._order:
            if job.job_id in missing:
                self._settle(job, deadline)
                yield job

    @overload
    def results(self, timeout: float | None = None, *, return_errors: Literal[False] = False) -> Iterator[Result]: ...
    @overload
    def results(self, timeout: float | None = None, *, return_errors: bool) -> Iterator[Result | RaygridError]: ...
    def results(self, timeout: float | None = None, *, return_errors: bool = False) -> Iterator[Result | RaygridError]:
        """Give the results in the order of the inputs, each as soon as it and all before it are there.

        Args:
            timeout: seconds for all of them together; None for as long as it takes.
            return_errors: give the error of a job that failed in its place; raised, it ends the iteration.

        Raises:
            RaygridError: a job did not end well, as `Job.result` raises it; the message names the input by its index
                and name, the job and the batch.
        """
        ended = self.as_completed(timeout)
        for index, job in enumerate(self._order):
            while job.ending is None:
                next(ended)
            if job.ending.error is None:
                yield job.ending.get()
                continue
            error = self._placed(index, job.job_id, job.ending.error)
            if not return_errors:
                raise error
            yield error

    def status(self) -> BatchStatus:
        """Ask the grid for the counts of the batch."""
        return self._connection.run(self._connection.flows.batch_status(self.batch_id))

    def cancel(self) -> int:
        """Ask the grid to cancel all jobs that have not ended; gives how many there are."""
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

    def _take(self, part: Part) -> Job:
        job = self._jobs.get(part.job_id) or Job(self._connection, part.job_id, self)
        if job.ending is None:
            job.ending = ending_of(part)
        self._stream.taken(part)
        return job

    def _settle(self, job: Job, deadline: float | None) -> None:
        clock = self._connection.flows.endpoint.retry.clock
        try:
            job.result(None if deadline is None else max(0.0, deadline - clock()))
        except RaygridError:
            if job.ending is None:
                raise

    def _placed(self, index: int, job_id: str, error: RaygridError) -> RaygridError:
        """How a job ended, with what tells which one it was."""
        name = self._names.get(job_id) or "input"
        return placed(error, index=index, name=name, job_id=job_id, batch_id=self.batch_id)

    def __repr__(self) -> str:
        ended = sum(job.ending is not None for job in self._order)
        return f"<BatchJobs {self.batch_id}: {len(self)} jobs, {ended} seen to end>"
