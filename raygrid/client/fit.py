"""Checks that an answer belongs to its call, and that its body arrived as the grid sent it.

The answer to another call means that connections were mixed up: by two processes that share a socket, by a proxy, or by
a faulty parent. Such an answer is never used: the call is sent once more over other connections, and then fails.
"""

from __future__ import annotations

import hashlib
import re

import httpx

from raygrid.client.calls import Call
from raygrid.errors import DamagedResultError, MismatchedResponseError, RaygridError

JOB_HEADER, BATCH_HEADER = "Raygrid-Job-Id", "Raygrid-Batch-Id"
TRIES = 2
# A proxy that compresses a body weakens the tag; the decompressed body is the same.
_DIGEST = re.compile(r'(?:W/)?"([0-9a-f]{64})"')


class UnfitAnswerError(httpx.TransportError):
    """An answer that is not used, as if it had not come; `error` is raised if that happens again."""

    def __init__(self, error: RaygridError) -> None:
        super().__init__(str(error))
        self.error = error


class MixedUpAnswerError(UnfitAnswerError):
    """The answer to another call: other answers on the same connections may be wrong, too."""


def require_own(call: Call, response: httpx.Response, entry: str) -> None:
    """Refuse the answer to another call.

    A result must name its job. Other answers are checked only if they name a job or batch: those of older grids and of
    proxies do not.

    Raises:
        MixedUpAnswerError: the answer is about another job or batch, or is a result that does not name its job.
    """
    for header, what, wanted in ((JOB_HEADER, "job", call.job_id), (BATCH_HEADER, "batch", call.batch_id)):
        if wanted is None:
            continue
        named = response.headers.get(header)
        if named == wanted or (named is None and not (call.is_result and response.is_success)):
            continue
        if named is None:
            why = f"{entry} sent a result without the header {header}, which may be that of another job"
        else:
            why = f"{entry} sent the answer for {what} {named}"
        raise MixedUpAnswerError(
            MismatchedResponseError(
                f"asked about {what} {wanted}, but {why}; it was discarded. Ask again; if this repeats, look for a "
                "proxy that mixes up answers or removes headers, or for processes that share a connection"
            )
        )


class BodyCheck:
    """Compares the body of a result with the digest in its ETag, piece by piece."""

    def __init__(self, call: Call, response: httpx.Response, entry: str) -> None:
        tag = _DIGEST.fullmatch(response.headers.get("etag", "")) if call.is_result and response.is_success else None
        self._expected = tag[1] if tag is not None else None
        self._hasher = hashlib.sha256()
        self._call, self._entry = call, entry

    def update(self, chunk: bytes) -> None:
        """Add the next bytes of the body."""
        if self._expected is not None:
            self._hasher.update(chunk)

    def require(self) -> None:
        """Refuse a body that does not match its digest.

        Raises:
            UnfitAnswerError: it does not match.
        """
        if self._expected is not None and self._hasher.hexdigest() != self._expected:
            raise UnfitAnswerError(damaged_result(str(self._call.job_id), self._entry))


def damaged_result(job_id: str, entry: str) -> DamagedResultError:
    """Make the error for a result that does not match the digest that came with it."""
    return DamagedResultError(
        f"the result of job {job_id} from {entry} does not match its digest; it was discarded. Ask again; if this "
        "repeats, submit the input under a new job id to run it again"
    )
