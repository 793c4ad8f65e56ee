"""Whether an answer belongs to the call that it came for, and whether its body arrived as the grid sent it.

An answer that is not the call's own means that something mixed up connections: two processes that share a socket, a
proxy, a parent with a fault. A wrong answer must never be taken for a result, so the call is sent once more, over other
connections, and then ends with an error.
"""

from __future__ import annotations

import hashlib
import re

import httpx

from raygrid.client.calls import Call
from raygrid.errors import DamagedResultError, MismatchedResponseError, RaygridError

JOB_HEADER, BATCH_HEADER = "Raygrid-Job-Id", "Raygrid-Batch-Id"
TRIES = 2
# A proxy that packs a body for its way weakens the tag; what is unpacked here is the same again.
_DIGEST = re.compile(r'(?:W/)?"([0-9a-f]{64})"')


class UnfitAnswerError(httpx.TransportError):
    """An answer that cannot be used, as if it had not come; `error` says what to raise when that happens again."""

    def __init__(self, error: RaygridError) -> None:
        super().__init__(str(error))
        self.error = error


class MixedUpAnswerError(UnfitAnswerError):
    """The answer to another call: what waits in the same connections cannot be trusted either."""


def require_own(call: Call, response: httpx.Response, entry: str) -> None:
    """Refuse the answer to another call.

    A result must name its job. Other answers are compared where they name a job or batch, as those of older grids and
    of proxies do not.

    Raises:
        MixedUpAnswerError: the answer is about another job or batch, or is a result without the name of its job.
    """
    for header, what, wanted in ((JOB_HEADER, "job", call.job_id), (BATCH_HEADER, "batch", call.batch_id)):
        if wanted is None:
            continue
        named = response.headers.get(header)
        if named == wanted or (named is None and not (call.is_result and response.is_success)):
            continue
        if named is None:
            why = f"{entry} gave a result without the header {header}, so it may be that of another job"
        else:
            why = f"{entry} gave the answer for {what} {named}"
        raise MixedUpAnswerError(
            MismatchedResponseError(
                f"asked about {what} {wanted}, but {why}; nothing of it was used. Ask again; if this stays so, look "
                "for a proxy that mixes up answers or removes headers, or for processes that share a connection"
            )
        )


class BodyCheck:
    """Compares the body of a result with the digest in its ETag, while it comes or at once."""

    def __init__(self, call: Call, response: httpx.Response, entry: str) -> None:
        tag = _DIGEST.fullmatch(response.headers.get("etag", "")) if call.is_result and response.is_success else None
        self._expected = tag[1] if tag is not None else None
        self._hasher = hashlib.sha256()
        self._call, self._entry = call, entry

    def update(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        if self._expected is not None:
            self._hasher.update(chunk)

    def require(self) -> None:
        """Refuse a body that is not what the grid says it sent.

        Raises:
            UnfitAnswerError: it is another one.
        """
        if self._expected is not None and self._hasher.hexdigest() != self._expected:
            raise UnfitAnswerError(damaged(str(self._call.job_id), self._entry))


def damaged(job_id: str, entry: str) -> DamagedResultError:
    """What to say of a result that does not have the digest that came with it."""
    return DamagedResultError(
        f"the result of job {job_id} came from {entry} with other bytes than its digest says; nothing of it was used. "
        "Ask again; if this stays so, submit the input under a new job id to run it again"
    )
