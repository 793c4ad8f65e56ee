"""Refuses requests that a browser makes for a page of another site, and requests for another host than this one.

A page on the web can send requests to a grid on the machine of its reader. Browsers tell where a request comes from
(`Sec-Fetch-Site`, `Origin`); a name that its owner lets point to this machine (DNS rebinding) is recognised by `Host`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from raygrid.errors import ForbiddenError, InvalidRequestError
from raygrid.parent.http import problems

_LOOKED_AT = frozenset({b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode"})
_OWN = frozenset({b"same-origin", b"none"})  # none: the user typed the address


class OwnSite:
    """An application that answers only requests for one of its hosts that no page of another site makes.

    Args:
        app: the application.
        hosts: names that `Host` may have, without a port and in lower case; None for any.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            try:
                require_own_site(scope["headers"], scope["method"], scope["http_version"], self._hosts)
            except (ForbiddenError, InvalidRequestError) as error:
                await problems.response_of(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def require_own_site(
    headers: Iterable[tuple[bytes, bytes]], method: str, http_version: str, hosts: Collection[str] | None
) -> None:
    """Refuse a request for another host, or from a page of another site.

    Args:
        headers: name, in lower case, and value of each.
        method: of the request.
        http_version: of the request; only `1.0` may lack a `Host`.
        hosts: as for `OwnSite`.

    Raises:
        InvalidRequestError: the request has no `Host`, or several.
        ForbiddenError: it is for another host, or a page of another site makes it.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _LOOKED_AT:
            if name in found:
                raise InvalidRequestError(f"the request has the header {name.decode().title()} twice; send it once")
            found[name] = value
    host = found.get(b"host")
    if not host:
        if http_version != "1.0":
            raise InvalidRequestError("the request has no header Host; send the grid's host and port in it")
    elif hosts is not None and (name_of := _name(host)) not in hosts:
        raise ForbiddenError(
            f"this grid does not answer requests for the host {name_of!r}; use one of {', '.join(sorted(hosts))}, or "
            "add the name to http.hosts in grid.yaml"
        )
    if not found.keys() - {b"host"}:
        return
    site = found.get(b"sec-fetch-site", b"none")
    follows_link = found.get(b"sec-fetch-mode") == b"navigate" and method in ("GET", "HEAD")
    origin = found.get(b"origin")
    if (site not in _OWN and not follows_link) or (origin is not None and origin.rpartition(b"//")[2] != host):
        raise ForbiddenError("this request was made by a page of another site, which may not use the grid")


def _name(host: bytes) -> str:
    """The name in the value of `Host`, in lower case."""
    name, _, port = host.decode("latin-1").lower().rpartition(":")
    return name.rstrip(".") if name and port.isdecimal() else host.decode("latin-1").lower().rstrip(".")
