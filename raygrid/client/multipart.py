"""Parts of a batch's results stream, as they come off the wire in chunks cut anywhere.

A part counts as soon as its Content-Length is reached: the boundary behind it is only written together with
the next part, which may be an hour later.
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
    """The stream is not what was announced; reading it again from the last cursor is the way on."""


class Part(NamedTuple):
    """One ended job; `body` is its ZIP and empty where there is none.

    `problem` is the type of the problem, as in an answer to a request, where the result was there and is gone, and
    `problem_detail` what the grid says of it. `reused_from` is the job that ran, where this one took over its result.
    `digest` is the sha256 that the ZIP should have, where the grid says it.
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
        return f"<Part of job {self.job_id}: {self.state}, {len(self.body):,} bytes>"


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The last part: whether the batch has ended, too, or there is more to ask for."""

    complete: bool


class PartsParser:
    """Cuts a multipart/mixed stream into parts, each of which announces its length.

    By the announced lengths rather than by looking for boundaries: batches are read by the thousand, and a parser of
    any multipart body, in Python, takes longer over a small result than all else that a client does with it.
    """

    def __init__(self, content_type: str) -> None:
        """Begin a stream.

        Raises:
            BrokenStreamError: the content type is no multipart, or names no boundary.
        """
        header = Message()
        header["Content-Type"] = content_type
        try:
            boundary = header.get_boundary()
        except (TypeError, ValueError):  # a boundary in pieces that do not belong together
            boundary = None
        if header.get_content_maintype() != "multipart" or not boundary:
            raise BrokenStreamError(f"the grid sent {content_type!r} where a multipart stream was due")
        self._opening = f"\r\n--{boundary}\r\n".encode()
        self._closing = f"\r\n--{boundary}--".encode()
        self._held = bytearray(b"\r\n")  # which stands before every boundary but the first
        self._at = 0  # what is held before this has been dealt with
        self._headers: dict[str, str] | None = None  # of the part whose body is due
        self._closed = False

    def feed(self, chunk: bytes) -> list[Part | StreamEnd]:
        """Take the next bytes and give the parts that are whole with them.

        Raises:
            BrokenStreamError: the bytes are no such stream.
        """
        if self._closed:
            return []
        self._held += chunk
        ready = []
        try:
            while (part := self._next()) is not None:
                ready.append(part)
        except (ValueError, KeyError) as error:
            raise BrokenStreamError(f"the results stream makes no sense: {error}") from error
        del self._held[: self._at]
        self._at = 0
        return ready

    def _next(self) -> Part | StreamEnd | None:
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
        """The headers of the next part once they are whole."""
        begins = bytes(self._held[self._at : self._at + len(self._opening)])
        if begins.startswith(self._closing):
            self._closed = True
            return None
        if begins != self._opening:
            if self._opening.startswith(begins) or self._closing.startswith(begins):
                return None  # there is more to come
            raise ValueError("something else stands where a part should begin")
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


def _part(headers: dict[str, str], body: bytes) -> Part | StreamEnd:
    if "raygrid-end" in headers:
        return StreamEnd(headers["raygrid-end"] == "complete")
    exit_code = headers.get("raygrid-exit-code")
    message = headers.get("raygrid-message")
    detail = headers.get("raygrid-problem-detail")
    return Part(
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
