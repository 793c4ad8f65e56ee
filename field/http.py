"""Plain HTTP requests, with bodies written byte by byte and answers read completely."""

from __future__ import annotations

import http.client
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BOUNDARY = "----field=7"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the grid."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode(errors="replace")

    @property
    def json(self) -> Any:
        """The body as JSON; an empty object if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def reason(self) -> str:
        """The reason of a failed job, or the type of the problem."""
        found = self.json
        if not isinstance(found, dict):
            return ""
        return str(found.get("reason") or found.get("outcome") or str(found.get("type", "")).rpartition("/")[2])

    @property
    def files(self) -> dict[str, bytes]:
        """The files of a result; empty if the body is not a ZIP."""
        try:
            with zipfile.ZipFile(io.BytesIO(self.body)) as archive:
                return {name: archive.read(name) for name in archive.namelist()}
        except zipfile.BadZipFile:
            return {}

    @property
    def short(self) -> str:
        """Status and beginning of the body, for the table."""
        if self.body[:2] == b"PK":
            return f"{self.status}, ZIP with {', '.join(sorted(self.files))}"
        if isinstance(self.json, dict) and "detail" in self.json:
            return f"{self.status} {self.reason}: {self.json['detail']}"
        return f"{self.status} {self.body[:120]!r}"


def request(
    port: int,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
) -> Answer:
    """Send one request over a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def part(disposition: str | bytes, data: bytes | str, more: Sequence[str] = ()) -> bytes:
    """One part of a form: its disposition as written, further header lines, its bytes."""
    raw = disposition if isinstance(disposition, bytes) else disposition.encode()
    lines = [
        f"--{BOUNDARY}".encode(),
        b"Content-Disposition: form-data; " + raw,
        *(line.encode() for line in more),
        b"",
    ]
    return b"\r\n".join((*lines, data if isinstance(data, bytes) else data.encode())) + b"\r\n"


def field(name: str, value: str) -> bytes:
    """A part that is a plain field."""
    return part(f'name="{name}"', value)


def form(*parts: bytes) -> tuple[bytes, dict[str, str]]:
    """The body of a form and the header that announces it."""
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f'multipart/form-data; boundary="{BOUNDARY}"'}
