"""A submitted job in the client's hands: wait for its result, ask for its state, cancel it."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.client.connection import AsyncConnection, BlockingConnection
from raygrid.client.ending import FINAL_ERRORS, Ending
from raygrid.client.result import Result
from raygrid.client.status import JobStatus
from raygrid.errors import DamagedResultError, JobFailedError, RaygridError
from raygrid.models import JobState

if TYPE_CHECKING:
    from raygrid.client.batch import BatchJobs


class JobRecord:
    """What a client remembers of a job: its id and, once it is known, its ending."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.ending: Ending | None = None

    def known(self, *, even_if_failed: bool = False) -> Ending | None:
        """The ending, if it answers what is asked: a failure seen without its ZIP does not show the ZIP."""
        if self.ending is None:
            return None
        if isinstance(self.ending.error, DamagedResultError):
            return None  # it may have been damaged on its way only, or be repaired by now
        lacks_zip = isinstance(self.ending.error, JobFailedError) and self.ending.result is None
        return None if even_if_failed and lacks_zip else self.ending

    def remember_result(self, result: Result, *, even_if_failed: bool) -> None:
        """Keep a fetched result; one fetched even if failed says nothing about whether the job did fail."""
        if self.ending is not None and not isinstance(self.ending.error, DamagedResultError):
            self.ending = Ending(result=result, error=self.ending.error)
        elif not even_if_failed:
            self.ending = Ending(result=result)

    def remember_error(self, error: RaygridError) -> None:
        """Keep an error that will not change any more."""
        if self.ending is None and isinstance(error, FINAL_ERRORS):
            self.ending = Ending(error=error)

    def release(self) -> None:
        """Forget the ending and its result, to give the memory back; asking again fetches it."""
        self.ending = None

    def _how_it_is(self) -> str:
        if self.ending is None:
            return "not seen to end yet"
        return "done" if self.ending.error is None else type(self.ending.error).__name__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.job_id}: {self._how_it_is()}>"

    def _repr_html_(self) -> str:
        return f"Job <code>{html.escape(self.job_id)}</code>: {html.escape(self._how_it_is())}"


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
