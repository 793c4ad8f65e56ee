"""Several entries of one grid behind one client: a request that fails makes the next try go to the next entry.

The client library itself tries again, with the same job ids; this only chooses where.
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
    """A transport that goes to one entry until it fails, then to the next.

    Args:
        urls: base URLs of the entries, all of one grid.
        first: number of the entry to begin with.
        tell: called with every request.
        inner: what carries requests; tests put fakes here.
    """

    def __init__(
        self,
        urls: Sequence[str],
        first: int = 0,
        tell: Callable[[EntryRequest], None] | None = None,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._urls = [httpx.URL(url) for url in urls]
        self._order = itertools.cycle(range(len(urls)))
        self._at = next(itertools.islice(self._order, first % len(urls), None))
        self._tell = tell or (lambda _: None)
        self._inner = inner or httpx.AsyncHTTPTransport()

    @property
    def entry(self) -> str:
        """The entry that the next request goes to."""
        return str(self._urls[self._at])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request through the entry whose turn it is."""
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
            self._tell(EntryRequest(str(url), asked_at, clock(), True))
        return response

    def _leave(self, at: int, asked_at: float, now: float) -> None:
        self._tell(EntryRequest(str(self._urls[at]), asked_at, now, False))
        if self._at == at:  # another request may have left it already
            self._at = next(self._order)

    async def aclose(self) -> None:
        """Give the sockets back."""
        await self._inner.aclose()


__all__ = ["Entries", "EntryRequest"]
