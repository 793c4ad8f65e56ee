"""The body of an answer, piece by piece; a large one is read from its connection directly.

httpx's parser reads 64 KB at a time and copies each byte four times, which costs as much CPU time as computing the
digest. An answer with a `Content-Length` has nothing to parse after its headers. The parser does not count the bytes
that are read here, so it takes the answer for unfinished and closes the connection with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

LARGE = 4 * 1024**2  # bytes; from this size on, a new connection costs less than parsing
PIECE = 256 * 1024  # bytes; larger pieces are not faster


def pieces(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body of an answer that is read as a stream.

    Raises:
        httpx.TransportError: the body did not arrive, or only a part of it did.
    """
    rest = _rest_if_large(response)
    if rest is None:
        yield from response.iter_bytes()
        return
    parsed = response.iter_raw()  # held to the end: its connection closes with it
    yield rest.taken(next(parsed, b""))  # the bytes that the parser has already read
    while rest.left:
        with _errors_of_httpx():
            piece = rest.stream.read(min(rest.left, PIECE), rest.timeout_s)
        yield rest.taken(piece)


async def pieces_async(response: httpx.Response) -> AsyncIterator[bytes]:
    """Do the same as `pieces` in an event loop."""
    rest = _rest_if_large(response)
    if rest is None:
        async for piece in response.aiter_bytes():
            yield piece
        return
    parsed = response.aiter_raw()
    yield rest.taken(await anext(parsed, b""))
    while rest.left:
        with _errors_of_httpx():
            piece = await rest.stream.read(min(rest.left, PIECE), rest.timeout_s)
        yield rest.taken(piece)


@dataclass(slots=True)
class _Rest:
    """The unread rest of a body: its length in bytes, its connection, and the timeout of each read."""

    left: int
    stream: Any
    timeout_s: float | None

    def taken(self, piece: bytes) -> bytes:
        """Count a piece of the body; an empty one is the end of the connection."""
        if not piece:
            raise httpx.RemoteProtocolError(f"the connection was closed {self.left} bytes before the end of the body")
        self.left -= len(piece)
        return piece


def _rest_if_large(response: httpx.Response) -> _Rest | None:
    """The whole body as a rest, if it is large and can be read directly; else None."""
    headers, extensions = response.headers, response.extensions
    if "network_stream" not in extensions or extensions.get("http_version") != b"HTTP/1.1":
        return None
    if "content-encoding" in headers or "transfer-encoding" in headers:
        return None
    length = headers.get("content-length", "")
    if not length.isdecimal() or int(length) < LARGE:
        return None
    return _Rest(int(length), extensions["network_stream"], response.request.extensions["timeout"]["read"])


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    import httpcore  # noqa: PLC0415 - not needed at the start of a command; httpx imports it with its first connection

    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.ReadTimeout(str(error)) from error
    except httpcore.NetworkError as error:
        raise httpx.ReadError(str(error)) from error
