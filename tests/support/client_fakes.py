"""Stand-ins for the grid and for time, shared by the tests of the client and the CLI: `Answers` and `FakeTime`."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from email.message import Message
from typing import Protocol
from urllib.parse import quote

import httpx
from typer.testing import Result

from raygrid.client import Client, RetryPolicy

URL = "http://grid.test"
Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class FakeTime:
    """A clock that moves only when `sleep` is called."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.sleeps: list[float] = []

    def clock(self) -> float:
        """Seconds, monotonic."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Move the clock and record the pause."""
        self.sleeps.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        """The same in an event loop."""
        self.sleep(seconds)
        await asyncio.sleep(0)

    def policy(self, **changes: float) -> RetryPolicy:
        """A retry policy on this clock, with the longest jitter."""
        return RetryPolicy(
            clock=self.clock, sleep=self.sleep, sleep_async=self.sleep_async, jitter=lambda: 1.0, **changes
        )


class Answers:
    """Gives one answer per request, in order, and keeps the requests; one more request is an error."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer the next request."""
        request.read()
        self.requests.append(request)
        if not self.answers:
            raise AssertionError(f"no answer is left for {request.method} {request.url}")
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return named(answer(request) if callable(answer) else answer, request)

    def client(self, time: FakeTime | None = None, api_key: str | None = None, **policy: float) -> Client:
        """A client that gets these answers."""
        retry = (time or FakeTime()).policy(**policy)
        return Client(URL, api_key, transport=httpx.MockTransport(self), retry=retry, plain_http=True)


class RunCommand(Protocol):
    """Runs the command line against scripted answers, as the fixtures named `run` do."""

    def __call__(self, answers: Answers, *words: str) -> Result: ...


def named(response: httpx.Response, request: httpx.Request) -> httpx.Response:
    """An answer with the name of the job that was asked for, as parents give it with results."""
    head, _, job_id = request.url.path.rpartition("/")
    if head.endswith("/result"):
        response.headers.setdefault("Raygrid-Job-Id", job_id)
    return response


def problem(word: str, status: int, *, retry_after: str | None = None, **members: object) -> httpx.Response:
    """A problem document as a parent sends it."""
    body = {"type": f"urn:raygrid:problem:{word}", "title": word, "status": status, "detail": f"said {word}"}
    headers = {"Content-Type": "application/problem+json"}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return httpx.Response(status, headers=headers, content=json.dumps({**body, **members}).encode())


def accepted(job_id: str = "j") -> httpx.Response:
    """The answer to a submit."""
    return httpx.Response(202, json={"jobId": job_id, "state": "queued", "created": True})


def zip_of(**files: str) -> bytes:
    """A result ZIP; keywords are file names with `__` for the dot."""
    return zip_with({name.replace("__", "."): text for name, text in files.items()})


# Output of pricers that is no UTF-8 text: kanji in Shift_JIS, data, line ends of other systems, nothing.
ANY_BYTES = [b"\x8e\xe6\x88\xf8\n", bytes(range(256)), b"a\r\nb\rc", b""]


def zip_with(files: Mapping[str, str | bytes]) -> bytes:
    """A result ZIP of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


BOUNDARY = "grid-parts"


def part(job_id: str, cursor: int, body: bytes = b"", state: str = "done", **headers: str) -> bytes:
    """A part of a results stream; headers in words with `_`, such as `reason` or `exit_code`."""
    lines = [
        f"--{BOUNDARY}",
        "Content-Type: application/zip",
        f"Content-Length: {len(body)}",
        f"Raygrid-Job-Id: {job_id}",
        f"Raygrid-State: {state}",
        f"Raygrid-Cursor: {cursor}",
        *(f"Raygrid-{name.replace('_', '-').title()}: {quote(value)}" for name, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body + b"\r\n"


def end(word: str = "complete") -> bytes:
    """The last part and the closing boundary."""
    body = json.dumps({"complete": word == "complete", "cursor": 0}).encode()
    head = f"--{BOUNDARY}\r\nRaygrid-End: {word}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode()


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in given chunks, which may break off with an error."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self.chunks = chunks
        self.error = error
        self.given = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            self.given += 1
            yield chunk
        if self.error is not None:
            raise self.error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


def stream(*chunks: bytes, error: Exception | None = None) -> httpx.Response:
    """The answer to a request for results."""
    return stream_of(Cut(*chunks, error=error))


def stream_of(body: Cut) -> httpx.Response:
    """The answer to a request for results, with this body."""
    headers = {"Content-Type": f'multipart/mixed; boundary="{BOUNDARY}"'}
    return httpx.Response(200, headers=headers, stream=body)


def form_of(request: httpx.Request) -> list[tuple[str, str | None, bytes]]:
    """The parts of a multipart/form-data request as (name, filename, content)."""
    header = Message()
    header["Content-Type"] = request.headers["content-type"]
    boundary = str(header.get_boundary()).encode()
    parts = []
    for raw in request.content.split(b"--" + boundary)[1:-1]:
        head, _, content = raw.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = Message()
        disposition["Content-Disposition"] = head.decode().splitlines()[0].partition(":")[2].strip()
        name = disposition.get_param("name", header="content-disposition")
        filename = disposition.get_filename()
        parts.append((str(name), filename, content.removesuffix(b"\r\n")))
    return parts


def batch_accepted(request: httpx.Request) -> httpx.Response:
    """The answer to a batch of which all jobs are taken."""
    parts = form_of(request)
    batch_id = next(content.decode() for name, _, content in parts if name == "batchId")
    jobs = [name for name, filename, _ in parts if filename is not None]
    return httpx.Response(
        202,
        json={"batchId": batch_id, "total": len(jobs), "created": len(jobs), "attached": 0, "refused": []},
    )
