"""Answers `HEAD` like `GET`, with the same status and headers but without the body (RFC 9110).

Load balancers and monitors check the health with `HEAD`, to which FastAPI itself answers 405.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send


class AppWithHead(FastAPI):
    """An application that answers `HEAD` like `GET`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await super().__call__(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            # Ends the answer at once, so that a stream is neither read nor waited for.
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await super().__call__({**scope, "method": "GET"}, receive, send_head)
