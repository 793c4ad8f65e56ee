"""Recognizes this machine's own addresses, and keeps requests to them away from proxies.

A proxy of the environment (`http_proxy`, `all_proxy`) is meant for requests that leave the site. It cannot reach this
machine's loopback: a request there would fail, or reach another machine's grid.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

NO_PROXY = ("no_proxy", "NO_PROXY")
_ALWAYS = ("localhost", "127.0.0.1", "127.0.0.0/8", "::1")
# A cloud's metadata service answers on the machine's own link; Ray asks it at its start. Through a proxy, the answer
# would describe the proxy's machine.
_METADATA = ("169.254.169.254", "metadata.google.internal")
# Connecting a datagram socket sends nothing; the kernel only chooses the source address.
_FAR_AWAY = ((socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:4860:4860::8888"))


def is_this_machine(host: str) -> bool:
    """Whether a host is `localhost`, a loopback address, or another address of this machine.

    Other names are not resolved: that needs a name server, and a site may want a proxy for its own names. An IPv6
    address may have brackets, as in a URL.
    """
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return _is_short_loopback(host)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified) or _is_own(str(mapped))


def _is_short_loopback(host: str) -> bool:
    """Whether it is a loopback address in a short form that only resolvers accept, such as `127.1`."""
    try:
        return host[:1].isdigit() and ipaddress.ip_address(socket.inet_aton(host)).is_loopback
    except (OSError, ValueError):
        return False


def _is_own(address: str) -> bool:
    """Whether a numeric address belongs to this machine: only such an address can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, UnicodeError):
        return False
    return True


def own_addresses() -> list[str]:
    """The addresses from which this machine connects to others; Ray's processes listen on the first of them."""
    found = []
    for family, far_away in _FAR_AWAY:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far_away, 80))
            found.append(str(probe.getsockname()[0]))
    return found


def without_proxy(environment: Mapping[str, str], hosts: Iterable[str] = ()) -> dict[str, str]:
    """Values of `no_proxy` and `NO_PROXY` with which a process uses no proxy for this machine and further hosts.

    Exceptions in the present environment are kept.
    """
    known = [each.strip() for name in NO_PROXY for each in environment.get(name, "").split(",")]
    value = ",".join(dict.fromkeys(each for each in (*known, *_ALWAYS, *_METADATA, *own_addresses(), *hosts) if each))
    return dict.fromkeys(NO_PROXY, value)


def open_here(request: urllib.request.Request, timeout_s: float) -> Any:
    """As `urllib.request.urlopen`, without the proxies of the environment; for servers on this machine."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_s)
