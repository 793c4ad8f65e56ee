"""Connections that fail within seconds after the machine at their other end is gone.

A parent's machine that loses power, or an address that moves to another machine, does not end its connections. The
kernel of this machine ends them: it probes idle connections, and sent data must be acknowledged in time.
"""

from __future__ import annotations

import contextlib
import socket
import urllib.request
from typing import TypeVar

import httpx

from raygrid.client.endpoint import Endpoint

IDLE_S = 2
BETWEEN_S = 1
GONE_S = 10  # also the longest time for which a busy parent may not read what it is sent

AnyTransport = TypeVar("AnyTransport", bound=httpx.HTTPTransport | httpx.AsyncHTTPTransport)


def options() -> list[tuple[int, int, int]]:
    """The socket options that this system supports."""
    wanted = {
        "TCP_KEEPIDLE": IDLE_S,
        "TCP_KEEPINTVL": BETWEEN_S,
        "TCP_KEEPCNT": (GONE_S - IDLE_S) // BETWEEN_S,
        "TCP_USER_TIMEOUT": GONE_S * 1000,
    }
    tcp = [
        (socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in wanted.items() if hasattr(socket, name)
    ]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *tcp]


def _is_direct(endpoint: Endpoint) -> bool:
    """Whether requests use no proxy of the environment; httpx uses proxies only with a transport that it makes."""
    # httpx reads `no_proxy` as the proxy of a scheme `no`.
    return endpoint.is_local or urllib.request.getproxies().keys() <= {"no"}


def transport(endpoint: Endpoint, kind: type[AnyTransport]) -> AnyTransport | None:
    """The transport of all requests; None for the one that httpx makes."""
    return kind(socket_options=options()) if _is_direct(endpoint) else None


def mounts(endpoint: Endpoint, kind: type[AnyTransport]) -> dict[str, AnyTransport | None]:
    """The transports of entries on this machine, if a proxy of the environment is used for all others."""
    hosts = frozenset() if _is_direct(endpoint) else endpoint.own_hosts
    return {f"all://{f'[{host}]' if ':' in host else host}": kind(socket_options=options()) for host in hosts}


def hang_up(response: httpx.Response) -> None:
    """End the connection of a response: a load balancer may send the next connection to another parent."""
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream is not None else None
    if connection is not None:
        # Not closed, because it is in httpx's pool again, which drops it when it finds it ended.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
