"""Holds a client back that sends a body faster than it is read, where Serve's direct ingress would gather it in memory.

Serve takes whatever a connection brings into a queue of its own, without a bound; with one, its reading waits, the
socket fills, and the sender waits, too.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

AHEAD = 8  # messages of a body, each some 64 KB


class Pushback:
    """ASGI middleware.

    Args:
        app: the application.
        gathers: the class of those `receive` that gather in an `asyncio.Queue` named `queue`, and wait for room in it.
    """

    def __init__(self, app: ASGIApp, gathers: type) -> None:
        self._app = app
        self._gathers = gathers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Bound the queue, then go on as if nothing had been."""
        if isinstance(receive, self._gathers):
            queue: asyncio.Queue[object] = receive.queue  # type: ignore[attr-defined]  # what `gathers` promises
            queue._maxsize = AHEAD  # type: ignore[attr-defined]  # asyncio offers no other way after it was made
        await self._app(scope, receive, send)
