"""The body of an answer, piece by piece; a large one is read from its connection directly.

httpx's parser takes in 64 KB at a time and copies each byte four times, which costs as much CPU time as comparing the
bytes with their digest. Where an answer says how long its body is, there is nothing left to parse behind the headers.
The parser does not know of what is read in this way, so it closes the connection when the answer is closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

LARGE = 4 * 1024**2  # bytes; a new connection costs less than parsing so many
PIECE = 256 * 1024  # bytes; larger pieces are no quicker


def pieces(response: httpx.Response) -> Iterator[bytes]:
    """The body of an answer that is read as a stream.

    Raises:
        httpx.TransportError: it did not come, or not all of it.
    """
    left = _length_if_large(response)
    if left is None:
        yield from response.iter_bytes()
        return
    stream, timeout_s = _connection(response)
    parsed = response.iter_raw()
    piece = next(parsed, b"")  # all that the parser holds already
    while piece:
        left -= len(piece)
        yield piece
        if not left:
            return
        with _errors_of_httpx():
            piece = stream.read(min(left, PIECE), timeout_s)
    raise _cut_short(left)


async def pieces_async(response: httpx.Response) -> AsyncIterator[bytes]:
    """As `pieces`, in an event loop."""
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
    """The length of a body that can be read directly, if that is worth it."""
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
    try:
        yield
    except httpcore.TimeoutException as error:
        raise httpx.ReadTimeout(str(error)) from error
    except httpcore.NetworkError as error:
        raise httpx.ReadError(str(error)) from error


def _cut_short(left: int) -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError(f"the connection was closed {left} bytes before the end of the body")
