"""A body that comes in through Serve's direct ingress is read no faster than the parent takes it."""

from __future__ import annotations

import asyncio
from typing import Any

from ray.serve._private.direct_ingress_http_util import ASGIDIReceiveProxy
from starlette.types import Message, Receive, Scope, Send

from raygrid.parent.http.backpressure import AHEAD, Backpressure

SCOPE: Scope = {"type": "http"}
PIECES = 1_000


async def test_serve_reads_no_further_than_a_few_pieces_ahead() -> None:
    """While the application does not read, Serve's own reader stops; then every piece comes, in its order."""
    read = 0

    async def from_socket() -> Message:
        nonlocal read
        if read == PIECES:
            await asyncio.Event().wait()
        read += 1
        return {"type": "http.request", "body": str(read).encode(), "more_body": read < PIECES}

    async def send(_message: Message) -> None: ...

    got: list[bytes] = []

    async def app(_scope: Scope, receive: Receive, _send: Send) -> None:
        for _ in range(10 * AHEAD):  # turns in which the reader could go on
            await asyncio.sleep(0)
        assert read <= AHEAD + 1
        more = True
        while more:
            message = await receive()
            got.append(message["body"])
            more = message["more_body"]

    proxy: Any = ASGIDIReceiveProxy(SCOPE, from_socket, asyncio.get_running_loop())
    reading = proxy.fetch_until_disconnect_task()
    async with asyncio.timeout(10):
        await Backpressure(app, ASGIDIReceiveProxy)(SCOPE, proxy, send)
    reading.cancel()
    assert got == [str(number).encode() for number in range(1, PIECES + 1)]


async def test_a_server_that_gathers_nothing_is_not_changed() -> None:
    """A server that passes its messages on one by one needs no bound."""

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_message: Message) -> None: ...

    seen: list[object] = []

    async def app(_scope: Scope, given: Receive, _send: Send) -> None:
        seen.append(given)

    await Backpressure(app, ASGIDIReceiveProxy)(SCOPE, receive, send)
    assert seen == [receive]
