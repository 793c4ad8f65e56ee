"""Requests that offer an upgrade: they are answered in HTTP/1.1, their bodies arrive, the connection goes on."""

from __future__ import annotations

import asyncio
import importlib
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI, Request
from uvicorn.protocols.http import auto

from raygrid.cluster.spec import HostSpec
from raygrid.local import free_port
from raygrid.parent.http.listener import Listener

pytestmark = pytest.mark.processes

OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
    "tls": "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    "websocket": "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "several": "upgrade: h2c, websocket/13\r\nconnection: UPGRADE\r\n",
    "none": "",
}
LARGE = b"0123456789" * 30_000


def application() -> FastAPI:
    app = FastAPI()

    @app.post("/size")
    async def size(request: Request) -> str:
        assert "upgrade" not in request.headers
        return f"{len(await request.body())} {request.headers['x-name']}"

    @app.get("/name")
    async def name(request: Request) -> str:
        return request.headers["x-name"]

    return app


@asynccontextmanager
async def own_listener(port: int) -> AsyncIterator[None]:
    listener = Listener(application(), "127.0.0.1", port)
    await listener.open()
    try:
        yield
    finally:
        await listener.close()


@asynccontextmanager
async def as_serve_does(port: int) -> AsyncIterator[None]:
    """A server made as Serve's proxies and replicas make theirs, by the function that they are configured with."""
    spec = HostSpec(Path("/nowhere"), head=True)
    module, _, function = spec.public_environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].rpartition(".")
    before = auto.AutoHTTPProtocol
    assert getattr(importlib.import_module(module), function)() == []
    try:
        listening = socket.create_server(("127.0.0.1", port))
        server = uvicorn.Server(uvicorn.Config(application(), lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve([listening]))
        yield
        server.should_exit = True
        await serving
    finally:
        auto.AutoHTTPProtocol = before


async def answer(reader: asyncio.StreamReader) -> str:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return f"{head[9:12].decode()} {(await reader.readexactly(int(length.split(b':')[1]))).decode()}"


def post(offer: str, body: bytes, *, chunked: bool = False) -> bytes:
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    head = f"POST /size HTTP/1.1\r\nHost: a\r\n{OFFERS[offer]}X-Name: {offer}\r\n{length}\r\n\r\n".encode()
    return head + (b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body)


def get(offer: str) -> bytes:
    return f"GET /name HTTP/1.1\r\nHost: a\r\n{OFFERS[offer]}X-Name: {offer}\r\n\r\n".encode()


@pytest.mark.parametrize("server", [own_listener, as_serve_does])
@pytest.mark.parametrize("segment", [1_000_000_000, 1_000, 7])
async def test_an_offer_is_ignored_and_the_connection_stays_usable(server: object, segment: int) -> None:
    """With and without a body, in one segment or in many: each request of a connection gets its own answer."""
    assert callable(server)
    port = free_port()
    async with server(port), asyncio.timeout(60):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for offer in OFFERS:
            for body in (b"", b"x", LARGE[: 2_000 if segment < 100 else None]):
                for request, expected in (
                    (get(offer), f'200 "{offer}"'),
                    (post(offer, body), f'200 "{len(body)} {offer}"'),
                    (post(offer, body or b"x", chunked=True), f'200 "{len(body or b"x")} {offer}"'),
                ):
                    for at in range(0, len(request), segment):
                        writer.write(request[at : at + segment])
                        await writer.drain()
                        await asyncio.sleep(0)
                    assert await answer(reader) == expected
        writer.close()


async def test_requests_that_are_sent_ahead_are_answered_in_their_order() -> None:
    """Several requests in one segment, some with an offer, are so many answers."""
    port = free_port()
    async with own_listener(port), asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get("h2c") + post("none", b"ab") + post("h2c", b"abc") + get("tls") + post("websocket", b"a"))
        expected = ['200 "h2c"', '200 "2 none"', '200 "3 h2c"', '200 "tls"', '200 "1 websocket"']
        assert [await answer(reader) for _ in expected] == expected
        writer.close()


@pytest.mark.parametrize(
    "request_",
    [
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\nGET /name HTTP/1.1\r\nX-Name: b\r\n\r\n",
        b"CONNECT /name HTTP/1.1\r\nHost: a\r\n\r\n",
        post("h2c", b"").replace(b"Content-Length: 0", b"Content-Length: 5\r\nTransfer-Encoding: chunked"),
        post("h2c", b"").replace(b"Content-Length: 0", b"Content-Length: x"),
    ],
)
async def test_ambiguous_requests_are_refused(request_: bytes) -> None:
    """A tunnel, or a body with two lengths, gets 400 and the end of the connection, with and without an offer."""
    port = free_port()
    async with own_listener(port), asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


@pytest.fixture
def form(tmp_path: Path) -> Path:
    path = tmp_path / "book.csv"
    path.write_bytes(b"id,kind\r\nt1,call\r\n")
    return path


async def test_curl_may_offer_http2(form: Path) -> None:
    """`curl --http2` sends a file in a form as usual."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    port = free_port()
    command = ["curl", "-sS", "--http2", "-H", "X-Name: curl", "-F", f"file=@{form}", f"http://127.0.0.1:{port}/size"]
    async with own_listener(port):
        ran = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30, check=True, text=True)
    size = int(ran.stdout.strip('"').split()[0])
    assert form.stat().st_size < size < 1_000


@pytest.mark.parametrize("server", [own_listener, as_serve_does])
@pytest.mark.parametrize(
    "request_",
    [
        b"GET /name\r\n\r\n",
        b"GET /name HTTP/0.9\r\nX-Name: a\r\n\r\n",
        b"POST /size HTTP/1.1\r\nHost: a\r\nX-Name: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        b"POST /size HTTP/1.1\r\nHost: a\r\nX-Name: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\n\r\n",
    ],
)
async def test_what_a_proxy_could_read_differently_is_refused(server: object, request_: bytes) -> None:
    assert callable(server)
    port = free_port()
    async with server(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


@pytest.mark.parametrize("server", [own_listener, as_serve_does])
async def test_trailers_are_no_headers(server: object) -> None:
    """Else a key could be sent after the body, past what looks at headers."""
    assert callable(server)
    port = free_port()
    head = b"POST /size HTTP/1.1\r\nHost: a\r\nX-Name: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with server(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"1\r\nx\r\n0\r\nX-Name: trailer\r\n\r\n")
        assert await answer(reader) == '200 "1 a"'
        writer.write(head + b"1\r\nx\r\n0\r\n\r\n")
        assert await answer(reader) == '200 "1 a"'
        writer.close()
