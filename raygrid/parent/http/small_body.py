"""Routes with a small JSON body, which FastAPI reads as a whole, and before it finds out who makes the request."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message

from raygrid.parent.http.forms import limited

MOST_BYTES = 64 * 1024


class SmallBodyRoute(APIRoute):
    """A route that reads at most `MOST_BYTES` of a body, so that a stranger cannot fill a parent's memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which raises `TooLargeError` for a longer body."""
        answer = super().get_route_handler()

        async def answer_small(request: Request) -> Response:
            body = bytearray()
            async for chunk in limited(request.stream(), MOST_BYTES, None):
                body += chunk

            async def receive() -> Message:
                return {"type": "http.request", "body": bytes(body), "more_body": False}

            return await answer(Request(request.scope, receive))

        return answer_small
