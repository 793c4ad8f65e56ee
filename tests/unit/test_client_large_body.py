"""Large results over real sockets are read past the parser, and are checked as small ones are."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from raygrid.client import AsyncClient, Client, large_body
from raygrid.errors import DamagedResultError
from tests.support.client_fakes import FakeTime

BODY = os.urandom(large_body.LARGE + 12_345)
READ_S = 0.3


def answer(body: bytes = BODY, *, sent: bytes | None = None, more: str = "", length: int | None = None) -> bytes:
    """The answer of a parent with a result; `sent` is what is sent instead of the whole body."""
    head = (
        f'HTTP/1.1 200 OK\r\nETag: "{hashlib.sha256(body).hexdigest()}"\r\nRaygrid-Job-Id: j\r\n{more}'
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + (body if sent is None else sent)


@contextmanager
def serving(*answers: bytes, closes: bool = True) -> Iterator[tuple[str, list[int]]]:
    """A server that sends these answers one by one; yields its URL, and a list of each request's connection number."""
    listening = socket.create_server(("127.0.0.1", 0))
    asked: list[int] = []
    left, over = list(answers), threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        with connection:
            received = b""
            while not over.is_set() and (data := connection.recv(65536)):
                received += data
                for _ in range(len(re.findall(rb"\r\n\r\n", received))):
                    asked.append(number)
                    sent = left.pop(0)
                    try:
                        connection.sendall(sent)
                    except OSError:
                        return  # the client has closed it
                    [length] = map(int, re.findall(rb"Content-Length: (\d+)", sent))
                    if len(sent.partition(b"\r\n\r\n")[2]) < length:
                        if not closes:
                            over.wait()
                        return
                received = b""

    def accept() -> None:
        for number in range(100):
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection, number), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", asked
    finally:
        over.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def by_client(url: str, path: Path) -> None:
    """Download with the blocking client."""
    with Client(url, retry=FakeTime().policy()) as client:
        client.job("j").download(path)


def by_async_client(url: str, path: Path) -> None:
    """Download with the client for event loops."""

    async def download() -> None:
        async with AsyncClient(url, retry=FakeTime().policy()) as client:
            await client.job("j").download(path)

    asyncio.run(download())


CLIENTS = pytest.mark.parametrize("download", [by_client, by_async_client])
Download = Callable[..., None]


@CLIENTS
def test_a_large_result_arrives_unchanged(download: Download, tmp_path: Path) -> None:
    """The file has every byte in order, from those that came with the headers to the last one."""
    with serving(answer()) as (url, _):
        download(url, tmp_path / "r.zip")
    assert (tmp_path / "r.zip").read_bytes() == BODY


def test_the_next_call_after_a_large_result_gets_its_own_answer(tmp_path: Path) -> None:
    """The parser did not count the bytes that were read past it, so the connection is not used again."""
    other = os.urandom(large_body.LARGE)
    with (
        serving(answer(), answer(other), answer(b"small"), answer(b"small, too")) as (url, asked),
        Client(url) as client,
    ):
        for number, expected in enumerate((BODY, other, b"small", b"small, too")):
            client.job("j").download(tmp_path / f"{number}")
            assert (tmp_path / f"{number}").read_bytes() == expected
        assert asked == [0, 1, 2, 2]


@CLIENTS
def test_a_large_result_that_is_cut_short_is_fetched_again(download: Download, tmp_path: Path) -> None:
    """A connection that ends in the middle of the body leaves no file; the next answer writes it."""
    with serving(answer(sent=BODY[: len(BODY) // 2]), answer()) as (url, asked):
        download(url, tmp_path / "r.zip")
        assert asked == [0, 1]
    assert (tmp_path / "r.zip").read_bytes() == BODY


@CLIENTS
@pytest.mark.parametrize("at", [0, len(BODY) // 2, len(BODY) - 1])
def test_a_large_result_with_one_wrong_byte_gives_no_file(download: Download, at: int, tmp_path: Path) -> None:
    """The client checks the digest of the whole body; a second damaged answer ends the call."""
    damaged = bytearray(BODY)
    damaged[at] ^= 1
    wrong = answer(sent=bytes(damaged))
    with serving(wrong, wrong) as (url, _), pytest.raises(DamagedResultError):
        download(url, tmp_path / "r.zip")
    assert list(tmp_path.iterdir()) == []


@CLIENTS
def test_a_large_result_that_a_proxy_compressed_is_decompressed(download: Download, tmp_path: Path) -> None:
    """Only a body without an encoding can be read past the parser."""
    packed = zlib.compress(BODY, 0)
    assert len(packed) > large_body.LARGE
    with serving(answer(sent=packed, length=len(packed), more="Content-Encoding: deflate\r\n")) as (url, _):
        download(url, tmp_path / "r.zip")
    assert (tmp_path / "r.zip").read_bytes() == BODY


CUT = pytest.mark.parametrize(
    ("closes", "error"),
    [
        (True, (httpx.RemoteProtocolError, "closed 7 bytes before the end")),
        (False, (httpx.ReadTimeout, "timed out|^$")),
    ],
)


@CUT
def test_errors_of_the_connection_are_those_of_httpx(closes: bool, error: tuple[type[Exception], str]) -> None:
    """The retry policy knows these errors: one for a body that is cut short, one for a body that stops arriving."""
    with (
        serving(answer(sent=BODY[:-7]), closes=closes) as (url, _),
        httpx.Client(timeout=READ_S) as http,
        http.stream("GET", url) as response,
        pytest.raises(error[0], match=error[1]),
    ):
        list(large_body.pieces(response))


@CUT
async def test_errors_of_the_connection_are_those_of_httpx_in_an_event_loop(
    closes: bool, error: tuple[type[Exception], str]
) -> None:
    """The same for the other client."""
    with serving(answer(sent=BODY[:-7]), closes=closes) as (url, _), pytest.raises(error[0], match=error[1]):
        async with httpx.AsyncClient(timeout=READ_S) as http, http.stream("GET", url) as response:
            _ = [piece async for piece in large_body.pieces_async(response)]
