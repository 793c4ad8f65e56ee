"""What tests of the HTTP interface share: ZIPs, results streams, server-sent events, and requests sent byte by byte."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx

from raygrid.client.multipart import PartsParser, ResultPart, StreamEnd


def unzip(answer: httpx.Response | bytes) -> dict[str, bytes]:
    """The files of a result, by name."""
    content = answer if isinstance(answer, bytes) else answer.content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def manifest(answer: httpx.Response | bytes) -> dict[str, Any]:
    """The manifest of a result."""
    parsed: dict[str, Any] = json.loads(unzip(answer)["manifest.json"])
    return parsed


def word(answer: httpx.Response) -> str:
    """The stable word of a problem document, once it is known to be a proper one."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert problem["detail"]
    kind: str = problem["type"]
    assert kind.startswith("urn:raygrid:problem:")
    return kind.rpartition(":")[2]


def parts_of(answer: httpx.Response) -> tuple[list[ResultPart], bool]:
    """The parts of a results stream, read by the client's own parser, and whether it ended with `complete`."""
    parsed = PartsParser(answer.headers["content-type"]).feed(answer.content)
    assert isinstance(parsed[-1], StreamEnd)
    parts = [part for part in parsed[:-1] if isinstance(part, ResultPart)]
    assert len(parts) == len(parsed) - 1
    return parts, parsed[-1].complete


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event."""

    id: int
    kind: str
    data: dict[str, Any]


def events_of(text: str) -> list[ServerEvent]:
    """The events of a whole stream; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append(ServerEvent(int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


BOUNDARY = "a-boundary"


def form_body(parts: Iterable[tuple[str, bytes]], *, end: bool = True) -> bytes:
    """A multipart body from pairs of a Content-Disposition (after `form-data; `) and content."""
    body = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; ".encode()
        + disposition.encode()
        + b"\r\n\r\n"
        + data
        + b"\r\n"
        for disposition, data in parts
    )
    return body + (f"--{BOUNDARY}--\r\n".encode() if end else b"")


FORM_TYPE = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


async def raw_request(url: str, head: str, body: bytes = b"", *, hang_up: bool = False) -> bytes:
    """Send a request as these very bytes; gives the whole answer, or nothing where we hang up after sending."""
    parsed = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parsed.host, parsed.port)
    try:
        lines = [*head.strip().splitlines(), f"Host: {parsed.host}:{parsed.port}", "Connection: close"]
        writer.write("\r\n".join(line.strip() for line in lines).encode("latin-1") + b"\r\n\r\n" + body)
        await writer.drain()
        return b"" if hang_up else await reader.read()
    finally:
        writer.close()


def status_of(raw: bytes) -> int:
    """The status of a raw answer."""
    return int(raw.split(b" ", 2)[1])
