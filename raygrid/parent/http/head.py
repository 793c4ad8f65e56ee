"""`HEAD` for everything that answers `GET`: the same status and headers, without the body (RFC 9110).

Load balancers and monitors ask for health in this way. FastAPI itself answers 405.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send


class AppWithHead(FastAPI):
    """An application that answers `HEAD` as it would `GET`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await super().__call__(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            # At once: a stream would otherwise be read, or waited for, to throw it away.
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await super().__call__({**scope, "method": "GET"}, receive, send_head)
