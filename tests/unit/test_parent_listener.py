"""The listener of a parent on a local grid: plain HTTP, nothing between it and its clients."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request

from raygrid.local import free_port
from raygrid.parent.listener import Listener

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


async def test_what_is_under_way_ends_and_nothing_new_comes_in() -> None:
    """A listener that closes lets the request at hand be answered, and then nobody is let in."""
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


async def test_a_body_that_nobody_reads_stays_with_the_sender() -> None:
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
