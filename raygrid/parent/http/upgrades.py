"""HTTP/1 as parents speak it: no upgrades, no trailers, no transfer encoding but `chunked`.

Offers of clients to upgrade a connection, such as `Upgrade: h2c`, are ignored, and answered in HTTP/1.1.

RFC 9110 allows a server to ignore the offer, which Java's HTTP client makes with each first request. uvicorn ignores
the header, but its parser takes the data after the headers for the other protocol, so that the body of the request is
lost. The protocol in this module parses such a request again without the offer.
"""

from __future__ import annotations

from typing import Any

import httptools
from uvicorn.protocols.http import auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_VERSIONS = ("1.0", "1.1")
_OF_AN_OFFER = frozenset({b"upgrade", b"http2-settings"})


class PlainProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools, without upgrades."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._offered = False
        self._head_is_complete = False

    def data_received(self, data: bytes) -> None:
        """Parse data."""
        self._unset_keepalive_if_required()
        while data:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                self._offered = False
                if (head := self._head_without_offer()) is None:
                    self.send_400_response("this request cannot be answered in HTTP/1.1")
                    return
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # like uvicorn
                data = head + data[offer.args[0] :]
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return
            else:
                return

    def on_message_begin(self) -> None:
        """A request begins."""
        self._head_is_complete = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; trailers after a body are dropped, because they would count as headers."""
        if not self._head_is_complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Pass the request to the application, unless it has to be parsed again.

        Raises:
            ValueError: a proxy in front could understand the request differently; the parser makes an error of it.
        """
        self._head_is_complete = True
        if self.parser.get_http_version() not in _VERSIONS:
            raise ValueError("not HTTP/1")
        if any(name == b"transfer-encoding" and value.strip().lower() != b"chunked" for name, value in self.headers):
            raise ValueError("a transfer encoding besides chunked")
        self._offered = self.parser.should_upgrade()
        if not self._offered:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is complete, unless it has to be parsed again."""
        if not self._offered:
            super().on_message_complete()

    def _should_upgrade(self) -> bool:
        """Whether uvicorn hands the connection to another protocol: never."""
        return False

    def _head_without_offer(self) -> bytes | None:
        """The head of the request that was just parsed, without the offer; None if it cannot be written again."""
        method = self.parser.get_method()
        if method == b"CONNECT" or any(b"\r" in value or b"\n" in value for _, value in self.headers):
            return None
        lines = [b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode("ascii"))]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                lines += [b"connection: " + option for option in options if option.lower() not in _OF_AN_OFFER]
            elif name not in _OF_AN_OFFER:
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])


def for_serve() -> list[Any]:
    """Make Ray Serve's servers in this process ignore offers, too; Serve calls this for its list of middleware.

    Returns:
        An empty list of middleware.
    """
    auto.AutoHTTPProtocol = PlainProtocol
    return []
