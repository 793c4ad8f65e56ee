"""Reads the results of a batch as its jobs end, over one or several streams.

The grid ends a stream after some time, and a failing parent or network breaks it. In both cases the next stream begins
after the last complete part. This module does no I/O; `jobs.py` and `async_jobs.py` read the bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx

from raygrid.client.calls import Call
from raygrid.client.ending import DAMAGED
from raygrid.client.endpoint import Endpoint
from raygrid.client.fit import TRIES, UnfitAnswerError, damaged_result
from raygrid.client.flows import MAX_WAIT_S
from raygrid.client.multipart import BrokenStreamError, PartsParser, ResultPart, StreamEnd
from raygrid.client.options import checked_id
from raygrid.client.refusal import error_of_refusal
from raygrid.client.retry import Backoff, is_worth_retrying
from raygrid.errors import ConnectionFailedError, RaygridError, WaitTimeoutError

# A driver catches these while it reads a stream and passes them to `broken`.
STREAM_ERRORS = (httpx.TransportError, BrokenStreamError)


class ResultsStream:
    """How far the results of one batch have been read.

    Attributes:
        cursor: the last complete part.
        complete: whether all jobs have ended and all parts were sent.
    """

    def __init__(self, endpoint: Endpoint, batch_id: str) -> None:
        self.cursor = 0
        self.complete = False
        self._path = f"/batches/{checked_id(batch_id, 'batch id')}/results"
        self._batch_id = batch_id
        self._endpoint = endpoint
        self._backoff = Backoff(endpoint.retry)
        self._parser: PartsParser | None = None
        self._end: StreamEnd | None = None
        self._parts = 0
        self._opened_at = 0.0
        self._unfit = 0
        self._damaged = ""  # the job of the last damaged part

    def call(self, deadline: float | None = None) -> Call:
        """Make the request for the next stream.

        Args:
            deadline: instant of the retry policy's clock until which to wait.

        Raises:
            WaitTimeoutError: the deadline is over.
        """
        self._opened_at = self._endpoint.retry.clock()
        wait_s = MAX_WAIT_S if deadline is None else min(MAX_WAIT_S, deadline - self._opened_at)
        if wait_s <= 0:
            raise WaitTimeoutError(f"batch {self._batch_id} has not ended in time; it goes on, wait again")
        self._parser = None
        self._end = None
        self._parts = 0
        params = (("cursor", str(self.cursor)), ("wait", f"{wait_s:.3f}"))
        return Call("GET", self._path, params, wait_s=wait_s, batch_id=self._batch_id)

    def opened(self, response: httpx.Response) -> None:
        """Read the headers of the answer.

        Raises:
            RaygridError: the grid refuses.
            BrokenStreamError: the answer is not a results stream, or the grid asks to try again.
        """
        self._endpoint.answered = True
        if is_worth_retrying(response):
            wanted_s = self._endpoint.wanted_pause_s(response, self._backoff.failures)
            raise _TryAgainError(error_of_refusal(response, self._endpoint), wanted_s)
        if not response.is_success:
            raise error_of_refusal(response, self._endpoint)
        self._parser = PartsParser(response.headers.get("content-type", ""))

    def feed(self, chunk: bytes) -> Iterator[ResultPart]:
        """Read bytes of the body and give the parts that they complete; acknowledge each with `taken`.

        Raises:
            BrokenStreamError: a part does not match its digest; it is read again, once.
        """
        if self._parser is None:
            raise AssertionError("feed() comes after opened()")
        for part in self._parser.feed(chunk):
            if isinstance(part, ResultPart):
                yield self._checked(part)
            else:
                self._end = part

    def _checked(self, part: ResultPart) -> ResultPart:
        if not part.digest or not part.body or hashlib.sha256(part.body).hexdigest() == part.digest:
            return part
        entry = self._endpoint.entry
        if self._damaged != part.job_id:
            self._damaged = part.job_id
            self._endpoint.leave(entry)
            raise BrokenStreamError(f"the result of job {part.job_id} came damaged from {entry}")
        return part._replace(body=b"", problem=DAMAGED, problem_detail=str(damaged_result(part.job_id, entry)))

    def taken(self, part: ResultPart) -> None:
        """Move the cursor behind a part that has been processed."""
        self.cursor = max(self.cursor, part.cursor)
        self._parts += 1
        self._unfit = 0
        self._backoff.reset()

    def closed(self) -> float:
        """Note the end of the body; gives the seconds to wait before the next stream.

        Raises:
            BrokenStreamError: the last part is missing.
        """
        if self._end is None:
            raise BrokenStreamError("the results stream stopped in the middle")
        self.complete = self._end.complete
        self._backoff.reset()
        ended_early = self._parts == 0 and self._endpoint.retry.clock() - self._opened_at < 0.2
        return 0.2 if ended_early and not self.complete else 0.0

    def broken(self, error: httpx.TransportError | BrokenStreamError) -> float:
        """Note a failure; gives the seconds to wait before the next stream.

        Raises:
            RaygridError: the retries are used up.
        """
        if isinstance(error, UnfitAnswerError):
            self._unfit += 1
            if self._unfit >= TRIES:
                raise error.error from None
        transport = error if isinstance(error, httpx.TransportError) else None
        at_least_s = error.retry_after_s if isinstance(error, _TryAgainError) else 0.0
        pause = self._backoff.pause_s(self._endpoint.budget_s(transport), at_least_s)
        if pause is not None:
            return pause
        if isinstance(error, UnfitAnswerError):
            raise error.error from None
        if isinstance(error, _TryAgainError):
            raise error.refusal from None
        if transport is not None:
            raise self._endpoint.no_answer(transport) from None
        raise ConnectionFailedError(
            f"the results of batch {self._batch_id} cannot be read from {self._endpoint.url}: {error}. "
            "The batch goes on; ask again with client.batch()"
        ) from error


class _TryAgainError(BrokenStreamError):
    """The grid cannot open the stream now."""

    def __init__(self, refusal: RaygridError, retry_after_s: float) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.retry_after_s = retry_after_s
