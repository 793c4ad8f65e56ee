"""Reading the results of a batch as its jobs end, over as many streams as it takes.

A stream ends when the grid has held it open long enough, or breaks because a parent or a cable did. Either
way the next one begins behind the last part that came whole. This is the part without I/O; `batch.py` moves
the bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import httpx

from raygrid.client.calls import Call
from raygrid.client.ending import DAMAGED
from raygrid.client.endpoint import Endpoint
from raygrid.client.fit import TRIES, UnfitAnswerError, damaged
from raygrid.client.flows import MAX_WAIT_S
from raygrid.client.multipart import BrokenStreamError, Part, PartsParser, StreamEnd
from raygrid.client.options import checked_id
from raygrid.client.problems import error_of_answer
from raygrid.client.retry import Backoff, is_worth_retrying
from raygrid.errors import ConnectionFailedError, RaygridError, WaitTimeoutError

# What a driver catches around the reading of one stream, to hand it to `broken`.
STREAM_ERRORS = (httpx.TransportError, BrokenStreamError)


class ResultsStream:
    """Where the reading of one batch stands.

    Attributes:
        cursor: the last part that came whole.
        complete: whether the grid has said that all jobs have ended and all parts were sent.
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
        self._damaged = ""  # the job whose part came damaged last

    def call(self, deadline: float | None = None) -> Call:
        """Make the request for the next stream.

        Args:
            deadline: instant of the retry policy's clock after which nobody wants to wait.

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
        """Take the head of the answer.

        Raises:
            RaygridError: the grid refuses.
            BrokenStreamError: what comes is no results stream.
        """
        self._endpoint.answered = True
        if is_worth_retrying(response):
            wanted_s = self._endpoint.wanted_pause_s(response, self._backoff.failures)
            raise _TryAgainError(error_of_answer(response, self._endpoint), wanted_s)
        if not response.is_success:
            raise error_of_answer(response, self._endpoint)
        self._parser = PartsParser(response.headers.get("content-type", ""))

    def feed(self, chunk: bytes) -> Iterator[Part]:
        """Take bytes of the body and give the parts that came whole; acknowledge each with `taken`.

        Raises:
            BrokenStreamError: a part is not what its digest says; it is read again, once.
        """
        if self._parser is None:
            raise AssertionError("feed() comes after opened()")
        for part in self._parser.feed(chunk):
            if isinstance(part, Part):
                yield self._checked(part)
            else:
                self._end = part

    def _checked(self, part: Part) -> Part:
        if not part.digest or not part.body or hashlib.sha256(part.body).hexdigest() == part.digest:
            return part
        entry = self._endpoint.entry
        if self._damaged != part.job_id:
            self._damaged = part.job_id
            self._endpoint.leave(entry)
            raise BrokenStreamError(f"the result of job {part.job_id} came damaged from {entry}")
        said = str(damaged(part.job_id, entry))
        return part._replace(body=b"", problem=DAMAGED, problem_detail=said)

    def taken(self, part: Part) -> None:
        """Move the cursor behind a part that has been dealt with."""
        self.cursor = max(self.cursor, part.cursor)
        self._parts += 1
        self._unfit = 0
        self._backoff.reset()

    def closed(self) -> float:
        """Take the end of the body; gives the seconds to wait before the next stream.

        Raises:
            BrokenStreamError: the last part is missing.
        """
        if self._end is None:
            raise BrokenStreamError("the results stream stopped in the middle")
        self.complete = self._end.complete
        self._backoff.reset()
        in_a_hurry = self._parts == 0 and self._endpoint.retry.clock() - self._opened_at < 0.2
        return 0.2 if in_a_hurry and not self.complete else 0.0

    def broken(self, error: httpx.TransportError | BrokenStreamError) -> float:
        """Take a failure; gives the seconds to wait before the next stream.

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
