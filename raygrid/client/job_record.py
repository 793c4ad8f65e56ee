"""What a client remembers of a job and of a batch; shared by blocking code and code in an event loop."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from raygrid.client.calls import Flow
from raygrid.client.ending import FINAL_ERRORS, Ending, ending_of
from raygrid.client.failure import located
from raygrid.client.flows import Flows
from raygrid.client.multipart import ResultPart
from raygrid.client.result import Result
from raygrid.client.results_stream import ResultsStream
from raygrid.errors import DamagedResultError, JobFailedError, RaygridError


class JobRecord:
    """A job's id and, once it is known, its ending."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.ending: Ending | None = None

    def release(self) -> None:
        """Forget the ending and its result, to free the memory; a later call fetches it again."""
        self.ending = None

    def _fetch(self, flows: Flows, timeout_s: float | None, *, even_if_failed: bool) -> Flow[Result]:
        """Give the result or error of the known ending, or ask the grid and remember its answer."""
        ending = self._known(even_if_failed=even_if_failed)
        if ending is not None:
            return ending.get(even_if_failed=even_if_failed)
        try:
            result = yield from flows.result(self.job_id, timeout_s=timeout_s, even_if_failed=even_if_failed)
        except RaygridError as error:
            if self.ending is None and isinstance(error, FINAL_ERRORS):
                self.ending = Ending(error=error)
            raise
        if self.ending is not None and not isinstance(self.ending.error, DamagedResultError):
            self.ending = Ending(result=result, error=self.ending.error)
        elif not even_if_failed:  # a result fetched with even_if_failed does not show whether the job failed
            self.ending = Ending(result=result)
        return result

    def _save(self, flows: Flows, path: str | Path, timeout_s: float | None, *, even_if_failed: bool) -> Flow[Path]:
        """Wait for the result and stream its ZIP to `path`."""
        save_to = Path(path)
        yield from flows.result(self.job_id, timeout_s=timeout_s, even_if_failed=even_if_failed, save_to=save_to)
        return save_to

    def _known(self, *, even_if_failed: bool) -> Ending | None:
        """The ending, if it answers the question: a failure without its ZIP is not enough for `even_if_failed`."""
        if self.ending is None:
            return None
        if isinstance(self.ending.error, DamagedResultError):
            return None  # the damage may have happened on the way, or may be repaired
        lacks_zip = isinstance(self.ending.error, JobFailedError) and self.ending.result is None
        return None if even_if_failed and lacks_zip else self.ending

    def _state(self) -> str:
        if self.ending is None:
            return "not seen to end yet"
        return "done" if self.ending.error is None else type(self.ending.error).__name__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.job_id}: {self._state()}>"

    def _repr_html_(self) -> str:
        return f"Job <code>{html.escape(self.job_id)}</code>: {html.escape(self._state())}"


AnyJob = TypeVar("AnyJob", bound=JobRecord)


class BatchRecord(Generic[AnyJob]):
    """A batch's jobs in the order of their inputs, and how far its results stream has been read.

    Args:
        flows: the operations on the grid.
        batch_id: the batch.
        job_ids: its jobs.
        make: makes the job of an id.
        refused: jobs that the grid refused, with the reason.
        names: job id to the name of its input, where known.
    """

    def __init__(
        self,
        flows: Flows,
        batch_id: str,
        job_ids: Iterable[str],
        make: Callable[[str], AnyJob],
        refused: Mapping[str, RaygridError] | None,
        names: Mapping[str, str] | None,
    ) -> None:
        self.batch_id = batch_id
        self.refused = dict(refused or {})
        self._names = names or {}
        self._make = make
        self._jobs = {job_id: make(job_id) for job_id in job_ids}
        self._stream = ResultsStream(flows.endpoint, batch_id)
        self._clock = flows.endpoint.retry.clock
        for job_id, error in self.refused.items():
            self._jobs[job_id].ending = Ending(error=error)

    def __len__(self) -> int:
        return len(self._jobs)

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else self._clock() + timeout

    def _remaining_s(self, deadline: float | None) -> float | None:
        return None if deadline is None else max(0.0, deadline - self._clock())

    def _split(self) -> tuple[list[AnyJob], dict[str, AnyJob]]:
        """The jobs whose ending is known, and the others by id."""
        jobs = self._jobs.values()
        ended = [job for job in jobs if job.ending is not None]
        return ended, {job.job_id: job for job in jobs if job.ending is None}

    def _take(self, part: ResultPart) -> AnyJob:
        """Record the end of a job that came over the results stream."""
        job = self._jobs.get(part.job_id) or self._make(part.job_id)
        if job.ending is None:
            job.ending = ending_of(part)
        self._stream.taken(part)
        return job

    def _outcome(self, index: int, job: AnyJob, *, return_errors: bool) -> Result | RaygridError:
        """The result of an ended job, or its error, which names the input, job and batch.

        Raises:
            RaygridError: that error, unless errors are to be returned.
        """
        assert job.ending is not None
        if job.ending.error is None:
            return job.ending.get()
        name = self._names.get(job.job_id) or "input"
        error = located(job.ending.error, index=index, name=name, job_id=job.job_id, batch_id=self.batch_id)
        if not return_errors:
            raise error
        return error

    def __repr__(self) -> str:
        ended = sum(job.ending is not None for job in self._jobs.values())
        return f"<{type(self).__name__} {self.batch_id}: {len(self)} jobs, {ended} seen to end>"
