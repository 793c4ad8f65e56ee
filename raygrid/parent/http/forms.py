"""Reads multipart bodies as they arrive: files go to the blob store piece by piece, options are collected.

A body is never held in memory as a whole. Small files stay in memory and travel inline with their jobs; a file that
exceeds the limit moves to the blob store while it is received.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from raygrid.blobs import BlobStore, Upload, input_key
from raygrid.errors import InvalidRequestError, TooLargeError
from raygrid.models import BlobSlice
from raygrid.parent.http.part_headers import CONTENT_HEADERS, PartHead, decoded, part_head
from raygrid.parent.http.transfer_encodings import Decoder, decoder
from raygrid.system.filenames import last_component, problem_of_input

MAX_BODY = "http.max_body"  # the setting that limits bodies
MOST_OPTIONS = 1_000
MOST_OPTION_BYTES = 16 * 1024**2  # of all options together
MOST_HEADER_BYTES = 16 * 1024
INLINE_TOTAL = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file of a form: the part's name, a safe file name, and its place in the blob store or its bytes."""

    part: str
    filename: str
    blob: BlobSlice
    inline: bytes | None


@dataclass(slots=True)
class ReceivedForm:
    """A form that has been read: its files, and its options by name."""

    files: list[ReceivedFile] = field(default_factory=list)
    options: dict[str, list[str]] = field(default_factory=dict)


def input_name(sent: str, part: str) -> str:
    """The name of an input in its job directory: the last component of the name that a client sent, unchanged.

    Raises:
        InvalidRequestError: a file in a job directory cannot have that name.
    """
    name = last_component(sent)
    if (problem := problem_of_input(name)) is not None:
        raise InvalidRequestError(f"the file name in the part {part[:140]!r} {problem}: {name[:140]!r}")
    # `data` is the directory of shared inputs.
    return "input" if name in ("", ".", "..", "data") else name


def require_plain_body(content_encoding: str) -> None:
    """Refuse a compressed body, because its bytes would be stored unchanged.

    Raises:
        InvalidRequestError: the header Content-Encoding names an encoding.
    """
    if content_encoding.strip().lower() not in ("", "identity"):
        raise InvalidRequestError(
            f"the request body has the Content-Encoding {content_encoding[:40]!r}, which the grid does not decode; "
            "send it without"
        )


async def limited(chunks: AsyncIterator[bytes], limit: int, setting: str | None = MAX_BODY) -> AsyncIterator[bytes]:
    """The same chunks, up to a limit of bytes, which may be that of a setting.

    Raises:
        TooLargeError: the body is longer.
    """
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        require_size(size, limit, setting)
        yield chunk


def require_size(size: int, limit: int, setting: str | None = MAX_BODY) -> None:
    """Refuse a body that is larger than a limit, bytes, which may be that of a setting.

    Raises:
        TooLargeError: it is.
    """
    if size > limit:
        name = "" if setting is None else f" ({setting})"
        raise TooLargeError(f"the request body is larger than the limit of {limit} bytes{name}")


async def _from_first_line(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes without empty lines before them.

    The parser would skip text after an empty first line, but only up to the end of a chunk, so that a network would
    decide whether a form is accepted.
    """
    async for chunk in chunks:
        if begun := chunk.lstrip(b"\r\n"):
            yield begun
            break
    async for chunk in chunks:
        yield chunk


class FormReader:
    """Reads one body with at most `max_files` files; a file of up to `inline` bytes stays in memory."""

    def __init__(self, blobs: BlobStore, *, inline: int, max_files: int) -> None:
        self._blobs = blobs
        self._inline = inline
        self._max_files = max_files
        self._inline_total = 0
        self._options = self._option_bytes = 0
        self._form = ReceivedForm()
        self._part: _Part | None = None
        self._texts: list[_Option] = []
        self._decoder: Decoder | None = None  # of the current part, if it is encoded

    async def read(self, content_type: str | None, chunks: AsyncIterator[bytes]) -> ReceivedForm:
        """Read a body to its end.

        Raises:
            InvalidRequestError: it is not a well-formed multipart/form-data body.
            TooLargeError: it has too many parts, or an option is too long.
        """
        kind, parameters = parse_options_header(content_type or "")
        boundary = parameters.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequestError(
                "the body must be multipart/form-data with a boundary, as sent by: curl -F file=@trade.csv"
            )
        events = _Events()
        try:
            parser = MultipartParser(boundary, events.callbacks(), max_header_size=MOST_HEADER_BYTES)
            async for chunk in _from_first_line(chunks):
                parser.write(chunk)
                await self._take(events)
            parser.finalize()
            await self._take(events)
            if not events.complete:
                raise InvalidRequestError("the multipart body is incomplete; send it again")
            self._read_options()
        except FormParserError as error:
            raise InvalidRequestError(
                f"the multipart body is malformed: {error}; it must begin with a boundary, the line of a boundary must "
                "contain nothing else, lines must end with CR LF, and headers must not be folded"
            ) from error
        finally:
            if isinstance(self._part, _File):
                await self._part.abort()
        return self._form

    async def _take(self, events: _Events) -> None:
        for kind, value in events.drain():
            if kind == "begin":
                self._part = self._begin(value)
            elif self._part is None:
                continue
            elif kind == "data":
                await self._part.write(value if self._decoder is None else self._decode(self._part, value))
            else:
                if self._decoder is not None:
                    await self._part.write(self._decode(self._part, None))
                await self._end(self._part)
                self._part = None

    def _begin(self, headers: dict[bytes, bytes]) -> _Part:
        head = part_head(headers)
        try:
            self._decoder = decoder(head.transfer_encoding)
        except ValueError as error:
            raise InvalidRequestError(f"the part {head.name[:140]!r} of the form cannot be read: {error}") from None
        if head.filename is None:
            self._options += 1
            if self._options > MOST_OPTIONS:
                raise TooLargeError(f"the form has more than {MOST_OPTIONS} options; files need a filename")
            return _Option(head, MOST_OPTION_BYTES - self._option_bytes)
        if len(self._form.files) >= self._max_files:
            raise TooLargeError(f"the form has more than {self._max_files} files; split it into several requests")
        # If this request holds enough bytes in memory, further files go to the blob store, whatever their size.
        inline = self._inline if self._inline_total < INLINE_TOTAL else 0
        return _File(head.name, input_name(head.filename, head.name), self._blobs, inline)

    def _decode(self, part: _Part, data: bytes | None) -> bytes:
        """Decode the next bytes of a part, or the rest at its end (None)."""
        assert self._decoder is not None
        try:
            return self._decoder.finish() if data is None else self._decoder.feed(data)
        except ValueError as error:
            raise InvalidRequestError(f"the part {part.name[:140]!r} of the form cannot be read: {error}") from None

    async def _end(self, part: _Part) -> None:
        if isinstance(part, _Option):
            self._texts.append(part)
            self._option_bytes += part.size
            return
        received = await part.finish()
        self._inline_total += len(received.inline or b"")
        self._form.files.append(received)

    def _read_options(self) -> None:
        """Decode the options after all were received, because `_charset_` is the character set of the others."""
        default = next((option.text("utf-8") for option in self._texts if option.name == "_charset_"), "utf-8")
        for option in self._texts:
            if option.name != "_charset_":
                self._form.options.setdefault(option.name, []).append(option.text(default))


class _Option:
    def __init__(self, head: PartHead, room: int) -> None:
        self.name = head.name
        self._charset = head.charset
        self._room = room
        self._data = bytearray()

    @property
    def size(self) -> int:
        return len(self._data)

    async def write(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > self._room:
            raise TooLargeError(
                f"the options are longer than {MOST_OPTION_BYTES} bytes together (at {self.name[:80]!r})"
            )

    def text(self, default_charset: str) -> str:
        return decoded(self._data, self._charset or default_charset, f"the option {self.name[:140]!r}")


class _File:
    def __init__(self, part: str, filename: str, blobs: BlobStore, inline: int) -> None:
        self.name = part
        self._filename = filename
        self._blobs = blobs
        self._inline = inline
        self._held = bytearray()
        self._upload: Upload | None = None

    async def write(self, data: bytes) -> None:
        if self._upload is not None:
            await self._upload.write(data)
        elif len(self._held) + len(data) <= self._inline:
            self._held += data
        else:
            self._upload = self._blobs.new_upload()
            if self._held:
                await self._upload.write(bytes(self._held))
                self._held.clear()
            await self._upload.write(data)

    async def finish(self) -> ReceivedFile:
        if self._upload is not None:
            blob = await self._upload.finish(input_key)
            self._upload = None
            return ReceivedFile(self.name, self._filename, blob, None)
        data = bytes(self._held)
        return ReceivedFile(
            self.name, self._filename, BlobSlice("", 0, len(data), hashlib.sha256(data).hexdigest()), data
        )

    async def abort(self) -> None:
        if self._upload is not None:
            await self._upload.abort()


_Part = _Option | _File


class _Events:
    """Collects the parser's callbacks in a list for asynchronous code.

    An event is a kind and a value: the headers of a part that begins, bytes of its data, or None at its end.
    """

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []
        self._name = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self.complete = False

    def drain(self) -> list[tuple[str, Any]]:
        events, self._events = self._events, []
        return events

    def callbacks(self) -> Any:
        """The callbacks for the parser, which does not export the TypedDict of their type."""
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": lambda: self._events.append(("begin", self._headers)),
            "on_part_data": lambda data, start, end: self._events.append(("data", data[start:end])),
            "on_part_end": lambda: self._events.append(("end", None)),
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._headers = {}

    def _header_end(self) -> None:
        name = bytes(self._name).lower()
        if name in CONTENT_HEADERS:
            if name in self._headers:
                raise InvalidRequestError(f"a part of the form has two headers {name.decode()!r}; send one")
            self._headers[name] = bytes(self._value).strip()
        self._name.clear()
        self._value.clear()

    def _end(self) -> None:
        self.complete = True
