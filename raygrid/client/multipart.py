"""Parts of a batch's results stream, read from chunks that may end anywhere.

A part is complete once its Content-Length is reached: the boundary after it is sent together with the next part, which
may be an hour later.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message
from typing import NamedTuple
from urllib.parse import unquote

from raygrid.errors import RaygridError
from raygrid.models import JobState

MOST_HEADER_BYTES = 64 * 1024
_STATES = {state.value: state for state in JobState}


class BrokenStreamError(RaygridError):
    """The stream is damaged or incomplete; it is read again from the last cursor."""


class ResultPart(NamedTuple):
    """One ended job.

    Attributes:
        job_id: the job.
        state: its terminal state.
        cursor: place of the part in the stream.
        reason: stable word for the cause of a failure.
        exit_code: the pricer's exit code, if it exited.
        message: the grid's message for a job that is not done.
        body: the ZIP; empty if there is none.
        problem: type of the problem document, if the result no longer exists or is damaged.
        problem_detail: the grid's text for it.
        reused_from: the job that ran, if this one took over its result.
        digest: the expected sha256 of the ZIP, if the grid sends it.
    """

    job_id: str
    state: JobState
    cursor: int
    reason: str | None = None
    exit_code: int | None = None
    message: str | None = None
    body: bytes = b""
    problem: str | None = None
    problem_detail: str | None = None
    reused_from: str | None = None
    digest: str | None = None

    def __repr__(self) -> str:
        return f"<ResultPart of job {self.job_id}: {self.state}, {len(self.body):,} bytes>"


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The last part; `complete` is whether all jobs of the batch have ended and were sent."""

    complete: bool


class PartsParser:
    """Splits a multipart/mixed stream into parts by the length that each part announces.

    It does not search for boundaries: batches have thousands of results, and a general multipart parser in Python takes
    longer for a small result than the rest of the client.
    """

    def __init__(self, content_type: str) -> None:
        """Begin a stream.

        Raises:
            BrokenStreamError: the content type is not multipart, or has no boundary.
        """
        header = Message()
        header["Content-Type"] = content_type
        try:
            boundary = header.get_boundary()
        except (TypeError, ValueError):  # a malformed boundary parameter
            boundary = None
        if header.get_content_maintype() != "multipart" or not boundary:
            raise BrokenStreamError(f"the grid sent {content_type!r} instead of a multipart stream")
        self._opening = f"\r\n--{boundary}\r\n".encode()
        self._closing = f"\r\n--{boundary}--".encode()
        self._held = bytearray(b"\r\n")  # precedes every boundary except the first
        self._at = 0  # index of the first held byte that is not parsed yet
        self._headers: dict[str, str] | None = None  # of the part whose body comes next
        self._closed = False

    def feed(self, chunk: bytes) -> list[ResultPart | StreamEnd]:
        """Add the next bytes and give the parts that they complete.

        Raises:
            BrokenStreamError: the bytes are not such a stream.
        """
        if self._closed:
            return []
        self._held += chunk
        ready = []
        try:
            while (part := self._next()) is not None:
                ready.append(part)
        except (ValueError, KeyError) as error:
            raise BrokenStreamError(f"the results stream is not valid: {error}") from error
        del self._held[: self._at]
        self._at = 0
        return ready

    def _next(self) -> ResultPart | StreamEnd | None:
        if self._headers is None:
            self._headers = self._head()
            if self._headers is None:
                return None
        length = int(self._headers["content-length"])
        if length < 0:
            raise ValueError(f"a part announced {length} bytes")
        if len(self._held) - self._at < length:
            return None
        body = bytes(self._held[self._at : self._at + length])
        self._at += length
        headers, self._headers = self._headers, None
        return _part(headers, body)

    def _head(self) -> dict[str, str] | None:
        """The headers of the next part, if they are complete."""
        begins = bytes(self._held[self._at : self._at + len(self._opening)])
        if begins.startswith(self._closing):
            self._closed = True
            return None
        if begins != self._opening:
            if self._opening.startswith(begins) or self._closing.startswith(begins):
                return None  # incomplete
            raise ValueError("a part does not begin with its boundary")
        start = self._at + len(self._opening)
        end = self._held.find(b"\r\n\r\n", start - 2)
        if end < 0:
            if len(self._held) - start > MOST_HEADER_BYTES:
                raise ValueError(f"the headers of a part are longer than {MOST_HEADER_BYTES} bytes")
            return None
        self._at = end + 4
        headers = {}
        for line in self._held[start:end].decode("latin-1").split("\r\n"):
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError("a header of a part has no colon")
            headers[name.lower()] = value.strip()
        return headers


def _part(headers: dict[str, str], body: bytes) -> ResultPart | StreamEnd:
    if "raygrid-end" in headers:
        return StreamEnd(headers["raygrid-end"] == "complete")
    exit_code = headers.get("raygrid-exit-code")
    message = headers.get("raygrid-message")
    detail = headers.get("raygrid-problem-detail")
    return ResultPart(
        job_id=headers["raygrid-job-id"],
        state=_STATES[headers["raygrid-state"]],
        cursor=int(headers["raygrid-cursor"]),
        reason=headers.get("raygrid-reason") or None,
        exit_code=int(exit_code) if exit_code else None,
        message=unquote(message) if message else None,
        body=body,
        problem=headers.get("raygrid-problem"),
        problem_detail=unquote(detail) if detail else None,
        reused_from=headers.get("raygrid-reused-from"),
        digest=headers["etag"].strip('"') if "etag" in headers else None,
    )
