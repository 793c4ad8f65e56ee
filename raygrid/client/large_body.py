"""The body of an answer, piece by piece; a large one is read from its connection directly.

httpx's parser reads 64 KB at a time and copies each byte four times, which costs as much CPU time as computing the
digest. An answer with a `Content-Length` has nothing to parse after its headers. The parser does not count the bytes
that are read here, so it takes the answer for unfinished and closes the connection with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

LARGE = 4 * 1024**2  # bytes; from this size on, a new connection costs less than parsing
PIECE = 256 * 1024  # bytes; larger pieces are not faster


def pieces(response: httpx.Response) -> Iterator[bytes]:
    """Yield the body of an answer that is read as a stream.

    Raises:
        httpx.TransportError: the body did not arrive, or only a part of it did.
    """
    left = _length_if_large(response)
    if left is None:
        yield from response.iter_bytes()
        return
    stream, timeout_s = _connection(response)
    parsed = response.iter_raw()
    piece = next(parsed, b"")  # what the parser has read already
    while piece:
        left -= len(piece)
        yield piece
        if not left:
            return
        with _errors_of_httpx():
            piece = stream.read(min(left, PIECE), timeout_s)
    raise _cut_short(left)


async def pieces_async(response: httpx.Response) -> AsyncIterator[bytes]:
    """Do the same as `pieces` in an event loop."""
    left = _length_if_large(response)
    if left is None:
        async for piece in response.aiter_bytes():
            yield piece
        return
    stream, timeout_s = _connection(response)
    parsed = response.aiter_raw()
    piece = await anext(parsed, b"")
    while piece:
        left -= len(piece)
        yield piece
        if not left:
            return
        with _errors_of_httpx():
            piece = await stream.read(min(left, PIECE), timeout_s)
    raise _cut_short(left)


def _length_if_large(response: httpx.Response) -> int | None:
    """The length of a body that is large and can be read directly; None for any other."""
    headers, extensions = response.headers, response.extensions
    if "network_stream" not in extensions or extensions.get("http_version") != b"HTTP/1.1":
        return None
    if "content-encoding" in headers or "transfer-encoding" in headers:
        return None
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and int(length) >= LARGE else None


def _connection(response: httpx.Response) -> tuple[Any, float | None]:
    """What the answer is read from, and how long to wait for the next bytes."""
    return response.extensions["network_stream"], response.request.extensions["timeout"]["read"]


@contextmanager
def _errors_of_httpx() -> Iterator[None]:
    import httpcore  # noqa: PLC0415 - httpx imports it with its first connection; a start of the command needs none

    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.ReadTimeout(str(error)) from error
    except httpcore.NetworkError as error:
        raise httpx.ReadError(str(error)) from error


def _cut_short(left: int) -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError(f"the connection was closed {left} bytes before the end of the body")
