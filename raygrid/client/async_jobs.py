"""Submitted jobs, alone or in batches, for an event loop: wait for results, ask for states, cancel."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Literal, overload

from raygrid.client.connection import AsyncConnection
from raygrid.client.job_record import BatchRecord, JobRecord
from raygrid.client.result import Result
from raygrid.client.results_stream import STREAM_ERRORS
from raygrid.client.status import BatchStatus, JobStatus
from raygrid.errors import RaygridError
from raygrid.models import JobState


class AsyncJob(JobRecord):
    """A job on the grid. Made by `AsyncClient.submit`, `AsyncClient.map` or `AsyncClient.job`."""

    def __init__(self, connection: AsyncConnection, job_id: str) -> None:
        super().__init__(job_id)
        self._connection = connection

    async def result(self, timeout: float | None = None, *, even_if_failed: bool = False) -> Result:
        """Wait until the job has ended and give its result; see `Job.result`."""
        return await self._connection.run(self._fetch(self._connection.flows, timeout, even_if_failed=even_if_failed))

    async def download(self, path: str | Path, timeout: float | None = None, *, even_if_failed: bool = False) -> Path:
        """Wait for the result and stream its ZIP to `path`, not through memory; errors as `result`."""
        flow = self._save(self._connection.flows, path, timeout, even_if_failed=even_if_failed)
        return await self._connection.run(flow)

    async def status(self) -> JobStatus:
        """Ask the grid for the job's state."""
        return await self._connection.run(self._connection.flows.status(self.job_id))

    async def done(self) -> bool:
        """Whether the job has ended, successfully or not."""
        return self.ending is not None or (await self.status()).state.is_terminal

    async def cancel(self) -> JobState:
        """Ask the grid to cancel the job, unless it has ended; gives the state that it was in."""
        return await self._connection.run(self._connection.flows.cancel(self.job_id))


class AsyncBatchJobs(BatchRecord[AsyncJob]):
    """The jobs of one batch, in the order of their inputs. Made by `AsyncClient.map` or `AsyncClient.batch`.

    Attributes:
        batch_id: the batch.
        refused: the jobs that the grid refused, with the error that their `result()` raises.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        batch_id: str,
        job_ids: Iterable[str],
        refused: Mapping[str, RaygridError] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(connection.flows, batch_id, job_ids, partial(AsyncJob, connection), refused, names)
        self._connection = connection

    def __iter__(self) -> Iterator[AsyncJob]:
        return iter(self._jobs.values())

    async def as_completed(self, timeout: float | None = None) -> AsyncGenerator[AsyncJob, None]:
        """Give the jobs as they end; see `BatchJobs.as_completed`. Only one task may iterate at a time."""
        deadline = self._deadline(timeout)
        ended, missing = self._split()
        for job in ended:
            yield job
        while missing and not self._stream.complete:
            async with aclosing(self._read_stream(deadline)) as jobs:
                async for job in jobs:
                    if missing.pop(job.job_id, None) is not None:
                        yield job
                    if not missing:
                        return
        # As in `BatchJobs.as_completed`.
        for job in missing.values():
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
        """Give the results in the order of the inputs; see `BatchJobs.results`."""
        async with aclosing(self.as_completed(timeout)) as ended:
            for index, job in enumerate(self):
                while job.ending is None:
                    await anext(ended)
                yield self._outcome(index, job, return_errors=return_errors)

    async def status(self) -> BatchStatus:
        """Ask the grid for the counts of the batch."""
        return await self._connection.run(self._connection.flows.batch_status(self.batch_id))

    async def cancel(self) -> int:
        """Ask the grid to cancel all jobs of the batch that have not ended; gives their number."""
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

    async def _settle(self, job: AsyncJob, deadline: float | None) -> None:
        try:
            await job.result(self._remaining_s(deadline))
        except RaygridError:
            if job.ending is None:
                raise
