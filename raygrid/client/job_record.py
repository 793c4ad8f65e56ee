"""What a client remembers of a job, be it used blocking or in an event loop."""

from __future__ import annotations

import html

from raygrid.client.ending import FINAL_ERRORS, Ending
from raygrid.client.result import Result
from raygrid.errors import DamagedResultError, JobFailedError, RaygridError


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
