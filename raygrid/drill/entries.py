"""An HTTP transport for several entries of one grid: after a failed request, the next one goes to the next entry.

The client library repeats failed requests, with the same job ids; the transport only chooses the entry.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class EntryRequest:
    """One request through one entry; times are those of the event loop's clock."""

    entry: str
    asked_at: float
    ended_at: float
    well: bool


class Entries(httpx.AsyncBaseTransport):
    """A transport that uses one entry until a request fails there, then the next.

    Args:
        urls: base URLs of the entries, all of one grid.
        first: index of the first entry to use.
        note: called with every request.
        inner: sends the requests; tests pass fakes.
    """

    def __init__(
        self,
        urls: Sequence[str],
        first: int = 0,
        note: Callable[[EntryRequest], None] | None = None,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._urls = [httpx.URL(url) for url in urls]
        self._order = itertools.cycle(range(len(urls)))
        self._at = next(itertools.islice(self._order, first % len(urls), None))
        self._note = note or (lambda _: None)
        self._inner = inner or httpx.AsyncHTTPTransport()

    @property
    def entry(self) -> str:
        """The entry of the next request."""
        return str(self._urls[self._at])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through the present entry."""
        at = self._at
        url = self._urls[at]
        request.url = request.url.copy_with(scheme=url.scheme, host=url.host, port=url.port)
        request.headers["Host"] = url.netloc.decode("ascii")
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.TransportError:
            self._leave(at, asked_at, clock())
            raise
        if response.status_code >= 500:
            self._leave(at, asked_at, clock())
        else:
            self._note(EntryRequest(str(url), asked_at, clock(), True))
        return response

    def _leave(self, at: int, asked_at: float, now: float) -> None:
        self._note(EntryRequest(str(self._urls[at]), asked_at, now, False))
        if self._at == at:  # otherwise another request has left this entry already
            self._at = next(self._order)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()
