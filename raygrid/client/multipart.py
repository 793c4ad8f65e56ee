"""Parts of a batch's results stream, as they come off the wire in chunks cut anywhere.

A part counts as soon as its Content-Length is reached: the boundary behind it is only written together with
the next part, which may be an hour later.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import unquote

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from raygrid.errors import RaygridError
from raygrid.models import JobState


class BrokenStreamError(RaygridError):
    """The stream is not what was announced; reading it again from the last cursor is the way on."""


@dataclass(frozen=True, slots=True)
class Part:
    """One ended job; `body` is its ZIP and empty where there is none.

    `problem` is the type of the problem, as in an answer to a request, where the result was there and is gone, and
    `problem_detail` what the grid says of it. `reused_from` is the job that ran, where this one took over its result.
    """

    job_id: str
    state: JobState
    cursor: int
    reason: str | None = None
    exit_code: int | None = None
    message: str | None = None
    body: bytes = field(default=b"", repr=False)
    problem: str | None = None
    problem_detail: str | None = None
    reused_from: str | None = None


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The last part: whether the batch has ended, too, or there is more to ask for."""

    complete: bool


class PartsParser:
    """Cuts a multipart/mixed stream into parts."""

    def __init__(self, content_type: str) -> None:
        """Begin a stream.

        Raises:
            BrokenStreamError: the content type is no multipart, or names no boundary.
        """
        header = Message()
        header["Content-Type"] = content_type
        boundary = header.get_boundary()
        if header.get_content_maintype() != "multipart" or not boundary:
            raise BrokenStreamError(f"the grid sent {content_type!r} where a multipart stream was due")
        self._ready: list[Part | StreamEnd] = []
        self._headers: dict[str, str] = {}
        self._name = b""
        self._value = b""
        self._body = bytearray()
        self._emitted = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._emit_if_whole,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
            },
            max_header_count=64,
            max_header_size=64 * 1024,
        )

    def feed(self, chunk: bytes) -> list[Part | StreamEnd]:
        """Take the next bytes and give the parts that are whole with them.

        Raises:
            BrokenStreamError: the bytes are no such stream.
        """
        try:
            self._parser.write(chunk)
        except (MultipartParseError, ValueError, KeyError) as error:
            raise BrokenStreamError(f"the results stream makes no sense: {error}") from error
        ready, self._ready = self._ready, []
        return ready

    def _part_begin(self) -> None:
        self._headers = {}
        self._body = bytearray()
        self._emitted = False

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1").strip()
        self._name = self._value = b""

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self._body += data[start:end]
        self._emit_if_whole()

    def _emit_if_whole(self) -> None:
        if len(self._body) == int(self._headers.get("content-length", -1)):
            self._emit()

    def _part_end(self) -> None:
        whole = int(self._headers.get("content-length", len(self._body)))
        if len(self._body) != whole:
            raise ValueError(f"a part has {len(self._body)} bytes and announced {whole}")
        if not self._emitted:
            self._emit()

    def _emit(self) -> None:
        self._emitted = True
        headers = self._headers
        if "raygrid-end" in headers:
            self._ready.append(StreamEnd(headers["raygrid-end"] == "complete"))
            return
        exit_code = headers.get("raygrid-exit-code")
        message = headers.get("raygrid-message")
        detail = headers.get("raygrid-problem-detail")
        self._ready.append(
            Part(
                job_id=headers["raygrid-job-id"],
                state=JobState(headers["raygrid-state"]),
                cursor=int(headers["raygrid-cursor"]),
                reason=headers.get("raygrid-reason") or None,
                exit_code=int(exit_code) if exit_code else None,
                message=unquote(message) if message else None,
                body=bytes(self._body),
                problem=headers.get("raygrid-problem"),
                problem_detail=unquote(detail) if detail else None,
                reused_from=headers.get("raygrid-reused-from"),
            )
        )
