"""Slows down clients that send a body faster than it is read, because Serve's direct ingress would hold it in memory.

Serve puts all data of a connection into a queue without a limit. With a limit, Serve stops reading, the socket's buffer
fills, and the client waits.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

AHEAD = 8  # messages of a body, each some 64 KB


class Backpressure:
    """ASGI middleware. `gathers` is the class of `receive` functions that have an `asyncio.Queue` named `queue`."""

    def __init__(self, app: ASGIApp, gathers: type) -> None:
        self._app = app
        self._gathers = gathers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Limit the queue, then pass the request on."""
        if isinstance(receive, self._gathers):
            queue: asyncio.Queue[object] = receive.queue  # type: ignore[attr-defined]  # what `gathers` promises
            queue._maxsize = AHEAD  # type: ignore[attr-defined]  # asyncio has no public way to change it
        await self._app(scope, receive, send)
