"""An HTTP transport that records every request: the entry of the grid that it used, when, and whether it succeeded.

The client library itself changes to another entry when a request fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class EntryRequest:
    """One request through one entry; times are those of the event loop's clock."""

    entry: str
    asked_at: float
    ended_at: float
    well: bool


class RequestRecorder(httpx.AsyncBaseTransport):
    """Sends requests through `inner`, and calls `note` for each."""

    def __init__(self, inner: httpx.AsyncBaseTransport, note: Callable[[EntryRequest], None]) -> None:
        self._inner = inner
        self._note = note

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; without an answer, or with a server error, it is recorded as failed."""
        clock = asyncio.get_running_loop().time
        entry, asked_at = entry_of(request.url), clock()
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.TransportError:
            self._note(EntryRequest(entry, asked_at, clock(), False))
            raise
        self._note(EntryRequest(entry, asked_at, clock(), response.status_code < 500))
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


def entry_of(url: httpx.URL | str) -> str:
    """The scheme, host and port of a URL, as recorded for an entry."""
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"
