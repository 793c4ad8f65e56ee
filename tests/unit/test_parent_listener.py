"""The listener of a parent on a local grid: plain HTTP, nothing between it and its clients."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from raygrid.local import free_port
from raygrid.parent.http import connection, open_files
from raygrid.parent.http.listener import Listener

pytestmark = pytest.mark.processes

UPLOAD = 64 * 1024**2


@asynccontextmanager
async def listening(app: FastAPI, port: int) -> AsyncIterator[Listener]:
    listener = Listener(app, "127.0.0.1", port)
    await listener.open()
    try:
        yield listener
    finally:
        await listener.close()


def answering(name: str) -> FastAPI:
    app = FastAPI()

    @app.get("/name")
    async def tell() -> str:
        return name

    return app


async def test_two_parents_of_a_machine_share_a_port() -> None:
    """While both listen on one port either may answer; when one has closed, the other takes every request."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/name"
    async with listening(answering("one"), port):
        async with listening(answering("two"), port), httpx.AsyncClient() as client:
            assert (await client.get(url)).json() in ("one", "two")
        for _ in range(20):
            async with httpx.AsyncClient() as client:
                assert (await client.get(url)).json() == "one"


async def test_pending_requests_end_and_no_new_ones_are_accepted() -> None:
    """A listener that closes lets the pending request be answered, and then accepts no connection."""
    app, asked, go_on = FastAPI(), asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> str:
        asked.set()
        await go_on.wait()
        return "done"

    port = free_port()
    async with httpx.AsyncClient() as client, listening(app, port) as listener:
        answer = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/slow"))
        await asked.wait()
        closing = asyncio.create_task(listener.close())
        go_on.set()
        assert (await answer).json() == "done"
        await closing
    with socket.socket() as knocking:
        assert knocking.connect_ex(("127.0.0.1", port)) != 0


async def test_a_body_that_is_not_read_stays_with_the_sender() -> None:
    """An upload is not gathered in memory: while the application does not read on, the sender cannot send."""
    app, begun, go_on = FastAPI(), asyncio.Event(), asyncio.Event()

    @app.post("/")
    async def receive(request: Request) -> int:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            begun.set()
            await go_on.wait()
        return size

    port, sent = free_port(), 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < UPLOAD:
            sent += 2**20
            yield bytes(2**20)

    async with listening(app, port), httpx.AsyncClient(timeout=30) as client:
        answer = asyncio.create_task(client.post(f"http://127.0.0.1:{port}/", content=body()))
        await begun.wait()
        before = -1
        while before != sent:  # until the sender has come to a stop
            before = sent
            await asyncio.sleep(0.2)
        assert sent < UPLOAD / 2
        go_on.set()
        assert (await answer).json() == UPLOAD


async def test_a_body_arrives_in_order_however_it_is_sent() -> None:
    """Pieces that come together, alone, or while the application is busy are the body, each once and in its place."""
    app = FastAPI()

    @app.post("/")
    async def receive(request: Request) -> str:
        digest = hashlib.sha256()
        async for chunk in request.stream():
            digest.update(chunk)
            await asyncio.sleep(0)
        return digest.hexdigest()

    pieces = [os.urandom(size) for size in (1, 2, 300_000, 5, 70_000, 3, 1_000_000, 1) * 5]

    async def body() -> AsyncIterator[bytes]:
        for at, piece in enumerate(pieces):
            yield piece
            if at % 3 == 0:
                await asyncio.sleep(0.001)

    port = free_port()
    async with listening(app, port), httpx.AsyncClient(timeout=30) as client:
        whole = b"".join(pieces)
        for content in (body(), whole, whole[:10]):
            answer = await client.post(f"http://127.0.0.1:{port}/", content=content)
            sent = whole[:10] if content == whole[:10] else whole
            assert answer.json() == hashlib.sha256(sent).hexdigest()


async def test_a_piece_of_a_body_that_comes_alone_is_passed_on_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application gets the same bytes object that was read from the connection."""
    app = FastAPI()
    read: list[bytes] = []
    takes = connection.LimitedConnection.on_body

    def take(self: connection.LimitedConnection, body: bytes) -> None:
        read.append(body)
        takes(self, body)

    @app.post("/")
    async def receive(request: Request) -> bool:
        return all([chunk is read[-1] async for chunk in request.stream() if chunk])

    monkeypatch.setattr(connection.LimitedConnection, "on_body", take)
    port = free_port()
    async with listening(app, port), httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/", content=b"x" * 1_000)
    assert answer.json() is True
    assert len(read) == 1


# --- hostile clients ------------------------------------------------------------------------------------------------


async def knock(port: int, sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    return reader, writer


async def everything(reader: asyncio.StreamReader) -> bytes:
    """The answer until the other side closes the connection."""
    answer = b""
    async with asyncio.timeout(10):
        with suppress(ConnectionError):
            while part := await reader.read(65_536):
                answer += part
    return answer


@pytest.mark.parametrize(
    ("begin", "part"),
    [
        (b"GET /name HTTP/1.1\r\nHost: a\r\n", b"X: " + b"y" * 1_000 + b"\r\n"),
        (b"GET /name HTTP/1.1\r\nHost: a\r\nX: ", b"y" * 1_000),
        (b"GET /name HTTP/1.1\r\nHost: a\r\n", b"y" * 1_000),
        (b"GET /name?", b"y" * 1_000),
        (b"", b"\r\n" * 500),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: " + b"y" * 1_000 + b"\r\n"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y" * 1_000),
    ],
    ids=["many headers", "one header", "one name", "the path", "blank lines", "many trailers", "one trailer"],
)
async def test_an_endless_request_is_refused(begin: bytes, part: bytes) -> None:
    """A request whose headers, path or trailers do not end is answered with 431 long before it fills the memory."""
    app, port = FastAPI(), free_port()

    @app.post("/")
    async def receive(request: Request) -> int:
        return len(await request.body())

    async with listening(app, port):
        reader, writer = await knock(port, begin)
        answered = asyncio.create_task(everything(reader))
        with suppress(ConnectionError):
            for _ in range(3_000):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)  # the listener is in this process, too
                if answered.done():
                    break
        answer = await answered
        assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert b"content-type: application/problem+json" in answer
        assert b"larger than 65536 bytes" in answer
        writer.close()


async def test_large_headers_below_the_limit_are_accepted() -> None:
    """They pass on one connection again and again, as do long bodies and chunks between them."""
    app, port = FastAPI(), free_port()

    @app.post("/")
    async def receive(request: Request) -> int:
        return len(await request.body()) + len(request.headers["x"])

    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(10_000)

    async with listening(app, port), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(3):
            headers = {"X": "y" * 60_000}
            assert (await client.post("/", headers=headers, content=body())).json() == 1_060_000
            assert (await client.post("/", headers=headers, content=bytes(300_000))).json() == 360_000
        assert (await client.post("/", headers={"X": "y" * 66_000})).status_code == 431


@pytest.mark.parametrize("sent", [b"", b"GET /name HT", b"GET /name HTTP/1.1\r\nHost: a\r\n"])
async def test_a_connection_without_a_whole_request_in_time_is_closed(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free again."""
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    port = free_port()
    async with listening(answering("one"), port):
        reader, writer = await knock(port, sent)
        assert (await everything(reader)).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        writer.close()


async def test_the_next_request_has_to_be_whole_in_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request after a whole one keeps a connection no longer than half a request at its beginning."""
    monkeypatch.setattr(connection, "HEAD_S", 0.2)
    port = free_port()
    async with listening(answering("one"), port):
        reader, writer = await knock(port, b"GET /name HTTP/1.1\r\nHost: a\r\n\r\nGET /na")
        answer = await everything(reader)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"HTTP/1.1 408 Request Timeout\r\n" in answer
        writer.close()


async def test_a_body_that_stops_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that announces a body and does not send it gets an answer, and is not waited for."""
    monkeypatch.setattr(connection, "BODY_S", 0.2)
    app, port = FastAPI(), free_port()

    @app.post("/")
    async def receive(request: Request) -> int:
        return len(await request.body())

    async with listening(app, port):
        reader, writer = await knock(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")
        answer = await everything(reader)
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert b"no data of the body arrived" in answer
        writer.close()


async def test_no_limit_applies_while_a_client_waits_for_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits are for clients: one that has sent all of its request waits for as long as the application takes."""
    for limit in ("HEAD_S", "BODY_S", "KEEP_ALIVE_S", "CROWDED_KEEP_ALIVE_S"):
        monkeypatch.setattr(connection, limit, 0.1)
    app, port = FastAPI(), free_port()

    @app.post("/")
    async def slow(request: Request) -> str:
        await asyncio.sleep(2.5)  # two looks after the connections, and more
        return f"{len(await request.body())}"

    async with listening(app, port), httpx.AsyncClient() as client:
        assert (await client.post(f"http://127.0.0.1:{port}/", content=bytes(300_000))).json() == "300000"


@pytest.mark.parametrize("reads", [False, True])
async def test_a_client_that_does_not_read_its_answer_is_cut(monkeypatch: pytest.MonkeyPatch, reads: bool) -> None:
    """Its answer would stay in memory; a client that reads slowly but steadily gets all of it."""
    monkeypatch.setattr(connection, "READ_S", 1.5)
    monkeypatch.setattr(connection, "CROWDED_READ_S", 1.0)
    app, port, ended = FastAPI(), free_port(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        try:
            for _ in range(100):
                yield bytes(256 * 1024)
        finally:
            ended.set()

    @app.get("/")
    async def large() -> StreamingResponse:
        return StreamingResponse(body())

    async with listening(app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 * 1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        size = 0
        if reads:
            while not ended.is_set():
                size += len(await reader.read(256 * 1024))
                await asyncio.sleep(0.01)
            assert size > 20_000_000
        else:
            async with asyncio.timeout(20):
                await ended.wait()
            with suppress(ConnectionResetError):
                while piece := await reader.read(1024 * 1024):
                    size += len(piece)
            assert size < 20_000_000
        writer.close()


async def test_bytes_after_the_answer_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that trickles on though the request was answered keeps no connection."""
    monkeypatch.setattr(connection, "KEEP_ALIVE_S", 0.5)
    port = free_port()
    async with listening(answering("one"), port):
        sent = b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
        reader, writer = await knock(port, sent)
        answered = asyncio.create_task(everything(reader))
        with suppress(ConnectionError):
            while not answered.done():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)
        assert (await answered).startswith(b"HTTP/1.1 404 Not Found\r\n")
        writer.close()


async def test_requests_sent_ahead_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may send some requests ahead; one that sends them without an end is refused."""
    monkeypatch.setattr(connection, "MOST_WAITING", 4)
    port = free_port()
    async with listening(answering("one"), port):
        reader, writer = await knock(port, b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n" * 4)
        async with asyncio.timeout(10):
            for _ in range(4):
                assert await reader.readuntil(b'"one"')
        writer.write(b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n" * 1_000)
        answer = await everything(reader)
        assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        writer.close()


async def test_a_sender_of_a_body_is_answered_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is not lost to the body that is still on its way."""
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 0)
    port = free_port()
    async with listening(answering("one"), port), httpx.AsyncClient() as client:
        for size in (100, 100_000, 2_000_000):
            refused = await client.post(f"http://127.0.0.1:{port}/name", content=bytes(size))
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")


async def test_an_idle_connection_is_closed_sooner_in_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """If more than half of the connections are taken, those between two requests are closed."""
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 1)
    monkeypatch.setattr(connection, "CROWDED_KEEP_ALIVE_S", 0.2)
    port = free_port()
    async with listening(answering("one"), port):
        reader, writer = await knock(port, b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await everything(reader)).endswith(b'"one"')
        writer.close()


async def test_too_many_connections_get_503_with_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit a request gets 503, a problem document and Retry-After, until a place is free."""
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 2)
    port = free_port()
    url = f"http://127.0.0.1:{port}/name"
    async with listening(answering("one"), port):
        idle = [await knock(port) for _ in range(2)]
        async with httpx.AsyncClient() as client:
            refused = await client.get(url)
            assert refused.status_code == 503
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.headers["retry-after"] == "5"
            assert refused.json()["type"] == "urn:raygrid:problem:unavailable"
            idle.pop()[1].close()
            async with asyncio.timeout(10):
                while (await client.get(url)).status_code != 200:
                    await asyncio.sleep(0.01)
        idle.pop()[1].close()


LITTLE_ROOM = """
import asyncio, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
from fastapi import FastAPI
from raygrid.parent.http.listener import Listener

app = FastAPI()

@app.get("/name")
async def name() -> str:
    return "one"

async def main() -> None:
    listener = Listener(app, "127.0.0.1", int(sys.argv[1]))
    await listener.open()
    print("open", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await listener.close()

asyncio.run(main())
"""


async def test_where_few_files_may_be_open_fewer_connections_are_taken() -> None:
    """More clients than the process may open files: those that came first are served, and no accept fails."""
    port = free_port()
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LITTLE_ROOM, str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    async with asyncio.timeout(150):
        assert await parent.stdout.readline() == b"open\n"
        first, writer = await knock(port, b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await first.readuntil(b'"one"')).startswith(b"HTTP/1.1 200")
        crowd = [await knock(port, b"GET /name HTTP/1.1\r\nHost: a\r\n") for _ in range(1_100)]
        writer.write(b"GET /name HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await first.readuntil(b"\r\n\r\n")
        assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 503"))
        for _, each in (*crowd, (first, writer)):
            each.close()
        async with httpx.AsyncClient() as client:
            while (await client.get(f"http://127.0.0.1:{port}/name")).status_code != 200:
                await asyncio.sleep(0.05)
        _, errors = await parent.communicate(b"")
    assert errors == b""


@pytest.mark.parametrize(
    ("files", "room"),
    [(100_000, (4096, 2048)), (6_656, (4096, 1664)), (1_024, (256, 256)), (256, (16, 64)), (20, (16, 16))],
)
def test_the_room_is_what_is_left_of_the_files(files: int, room: tuple[int, int]) -> None:
    """After connections that wait, those that get a 503, and the parent's own."""
    found = open_files.room_in(files, most=4_096, spare=256)
    assert (found.connections, found.backlog) == room


async def test_far_too_many_connections_are_cut_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No client takes a parent's last file descriptor: beyond the spare connections no request is waited for."""
    monkeypatch.setattr(connection, "MOST_CONNECTIONS", 1)
    monkeypatch.setattr(connection, "SPARE_CONNECTIONS", 1)
    port = free_port()
    async with listening(answering("one"), port):
        idle = [await knock(port) for _ in range(2)]
        reader, writer = await knock(port)
        answer = await everything(reader)
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"retry-after: 5\r\n" in answer
        for _, each in [*idle, (reader, writer)]:
            each.close()


# --- whom it answers ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs of another user")
@pytest.mark.parametrize(("user", "status"), [(0, "200"), (33, "403")])
async def test_a_listener_for_its_own_user_refuses_every_other(user: int, status: str) -> None:
    """A program of the grid's user needs no key; another user gets an error with the setting that lets them in."""
    port = free_port()
    listener = Listener(answering("one"), "127.0.0.1", port, own_user_only=True)
    await listener.open()
    try:
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        command = [
            *as_user,
            "curl",
            "-s",
            "-d",
            "x",
            "-X",
            "GET",
            "-w",
            "%{http_code}",
            f"http://127.0.0.1:{port}/name",
        ]
        curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        printed, _ = await curl.communicate()
        assert printed.decode().endswith(status)
        assert ("raygrid keys add" in printed.decode()) == (user != 0)
    finally:
        await listener.close()
