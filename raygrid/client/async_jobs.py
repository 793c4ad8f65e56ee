"""Submitted jobs, alone or in batches, for an event loop: wait for results, ask for states, cancel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Literal, overload

from raygrid.client.connection import AsyncConnection
from raygrid.client.ending import Ending, ending_of
from raygrid.client.failure import placed
from raygrid.client.job_record import JobRecord
from raygrid.client.multipart import Part
from raygrid.client.result import Result
from raygrid.client.results_stream import STREAM_ERRORS, ResultsStream
from raygrid.client.status import BatchStatus, JobStatus
from raygrid.errors import RaygridError
from raygrid.models import JobState


class AsyncJob(JobRecord):
    """A job on the grid. Made by `AsyncClient.submit`, `AsyncClient.map` or `AsyncClient.job`."""

    def __init__(self, connection: AsyncConnection, job_id: str) -> None:
        super().__init__(job_id)
        self._connection = connection

    async def result(self, timeout: float | None = None, *, even_if_failed: bool = False) -> Result:
        """Wait until the job has ended and give its result; arguments and errors as `Job.result`."""
        ending = self.known(even_if_failed=even_if_failed)
        if ending is not None:
            return ending.get(even_if_failed=even_if_failed)
        flow = self._connection.flows.result(self.job_id, timeout_s=timeout, even_if_failed=even_if_failed)
        try:
            result = await self._connection.run(flow)
        except RaygridError as error:
            self.remember_error(error)
            raise
        self.remember_result(result, even_if_failed=even_if_failed)
        return result

    async def download(self, path: str | Path, timeout: float | None = None, *, even_if_failed: bool = False) -> Path:
        """Wait for the result and stream its ZIP to `path`, not through memory; errors as `result`."""
        path = Path(path)
        flow = self._connection.flows.result(
            self.job_id, timeout_s=timeout, even_if_failed=even_if_failed, save_to=path
        )
        await self._connection.run(flow)
        return path

    async def status(self) -> JobStatus:
        """Ask the grid how the job is doing."""
        return await self._connection.run(self._connection.flows.status(self.job_id))

    async def done(self) -> bool:
        """Whether the job has ended, be it well or not."""
        return self.ending is not None or (await self.status()).state.is_terminal

    async def cancel(self) -> JobState:
        """Ask the grid to cancel the job; gives the state it was in. A job that has ended stays as it is."""
        return await self._connection.run(self._connection.flows.cancel(self.job_id))


class AsyncBatchJobs:
    """The jobs of one batch, in the order of their inputs. Made by `AsyncClient.map` or `AsyncClient.batch`.

    Attributes:
        batch_id: the batch.
        refused: jobs that the grid did not take, and why; their `result()` raises it.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        batch_id: str,
        job_ids: Iterable[str],
        refused: Mapping[str, RaygridError] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.batch_id = batch_id
        self.refused = dict(refused or {})
        self._names = names or {}
        self._connection = connection
        self._jobs = {job_id: AsyncJob(connection, job_id) for job_id in job_ids}
        self._stream = ResultsStream(connection.flows.endpoint, batch_id)
        for job_id, error in self.refused.items():
            self._jobs[job_id].ending = Ending(error=error)

    def __iter__(self) -> Iterator[AsyncJob]:
        return iter(self._jobs.values())

    def __len__(self) -> int:
        return len(self._jobs)

    async def as_completed(self, timeout: float | None = None) -> AsyncGenerator[AsyncJob, None]:
        """Give the jobs as they end; as `BatchJobs.as_completed`, for one task at a time."""
        clock = self._connection.flows.endpoint.retry.clock
        deadline = None if timeout is None else clock() + timeout
        missing = {job.job_id for job in self if job.ending is None}
        for job in [job for job in self if job.ending is not None]:
            yield job
        while missing and not self._stream.complete:
            async with aclosing(self._read_stream(deadline)) as jobs:
                async for job in jobs:
                    if job.job_id in missing:
                        missing.remove(job.job_id)
                        yield job
                    if not missing:
                        return
        # A job that another batch had submitted before may be no part of this batch's stream.
        for job in self:
            if job.job_id in missing:
                await self._settle(job, deadline)
                yield job

    @overload
    def results(
        self, timeout: float | None = None, *, return_errors: Literal[False] = False
    ) -> AsyncIterator[Result]: ...
    @overload
    def results(self, timeout: float | None = None, *, return_errors: bool) -> AsyncIterator[Result | RaygridError]: ...
    async def results(
        self, timeout: float | None = None, *, return_errors: bool = False
    ) -> AsyncIterator[Result | RaygridError]:
        """Give the results in the order of the inputs; as `BatchJobs.results`."""
        async with aclosing(self.as_completed(timeout)) as ended:
            for index, job in enumerate(self):
                while job.ending is None:
                    await anext(ended)
                if job.ending.error is None:
                    yield job.ending.get()
                    continue
                error = self._placed(index, job.job_id, job.ending.error)
                if not return_errors:
                    raise error
                yield error

    async def status(self) -> BatchStatus:
        """Ask the grid for the counts of the batch."""
        return await self._connection.run(self._connection.flows.batch_status(self.batch_id))

    async def cancel(self) -> int:
        """Ask the grid to cancel all jobs that have not ended; gives how many there are."""
        return await self._connection.run(self._connection.flows.cancel_batch(self.batch_id))

    async def _read_stream(self, deadline: float | None) -> AsyncGenerator[AsyncJob, None]:
        stream = self._stream
        try:
            async with self._connection.stream(stream.call(deadline)) as response:
                stream.opened(response)
                async for chunk in self._connection.chunks(response):
                    for part in stream.feed(chunk):
                        yield self._take(part)
            await self._connection.pause(stream.closed())
        except STREAM_ERRORS as error:
            await self._connection.pause(stream.broken(error))

    def _take(self, part: Part) -> AsyncJob:
        job = self._jobs.get(part.job_id) or AsyncJob(self._connection, part.job_id)
        if job.ending is None:
            job.ending = ending_of(part)
        self._stream.taken(part)
        return job

    async def _settle(self, job: AsyncJob, deadline: float | None) -> None:
        clock = self._connection.flows.endpoint.retry.clock
        try:
            await job.result(None if deadline is None else max(0.0, deadline - clock()))
        except RaygridError:
            if job.ending is None:
                raise

    def _placed(self, index: int, job_id: str, error: RaygridError) -> RaygridError:
        """How a job ended, with what tells which one it was."""
        name = self._names.get(job_id) or "input"
        return placed(error, index=index, name=name, job_id=job_id, batch_id=self.batch_id)

    def __repr__(self) -> str:
        ended = sum(job.ending is not None for job in self)
        return f"<AsyncBatchJobs {self.batch_id}: {len(self)} jobs, {ended} seen to end>"
