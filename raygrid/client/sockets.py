"""Connections that notice when the machine at their other end is gone.

A parent's machine that loses power, or an address that moves to another machine, says nothing to whoever waits for a
result. The kernel asks after it: an idle connection is probed, and what was sent must be confirmed in time.
"""

from __future__ import annotations

import contextlib
import socket
import urllib.request

import httpx

from raygrid.client.endpoint import Endpoint

IDLE_S = 2
BETWEEN_S = 1
GONE_S = 10  # so long may a parent also be too busy to read what is sent to it


def options() -> list[tuple[int, int, int]]:
    """Socket options, as far as this system knows them."""
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
    """Whether no proxy of the environment stands between; httpx asks for those only where it makes the transport."""
    # `no_proxy` counts there as the proxy of a scheme `no`.
    return endpoint.is_local or urllib.request.getproxies().keys() <= {"no"}


def transport(endpoint: Endpoint) -> httpx.HTTPTransport | None:
    """What carries a client's requests; None for httpx's own choice."""
    return httpx.HTTPTransport(socket_options=options()) if _is_direct(endpoint) else None


def async_transport(endpoint: Endpoint) -> httpx.AsyncHTTPTransport | None:
    """What carries the requests of a client for an event loop; None for httpx's own choice."""
    return httpx.AsyncHTTPTransport(socket_options=options()) if _is_direct(endpoint) else None


def mounts(endpoint: Endpoint) -> dict[str, httpx.HTTPTransport | None]:
    """What carries requests to entries on this machine where a proxy of the environment is used for the others."""
    return {_to(host): httpx.HTTPTransport(socket_options=options()) for host in _beside_proxy(endpoint)}


def async_mounts(endpoint: Endpoint) -> dict[str, httpx.AsyncHTTPTransport | None]:
    """As `mounts`, for an event loop."""
    return {_to(host): httpx.AsyncHTTPTransport(socket_options=options()) for host in _beside_proxy(endpoint)}


def _beside_proxy(endpoint: Endpoint) -> frozenset[str]:
    return frozenset() if _is_direct(endpoint) else endpoint.own_hosts


def _to(host: str) -> str:
    return f"all://{f'[{host}]' if ':' in host else host}"


def hang_up(response: httpx.Response) -> None:
    """Use the connection of an answer no more: what balances connections may send the next one to another parent."""
    stream = response.extensions.get("network_stream")
    connection = stream.get_extra_info("socket") if stream is not None else None
    if connection is not None:
        # Not closed, for it lies in the pool again, which finds it ended and drops it.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
