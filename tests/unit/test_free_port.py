"""A port for a grid stays free until the grid listens."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from raygrid.local import free_port, port


def test_it_is_none_that_the_kernel_chooses_for_outgoing_connections() -> None:
    """A grid listens seconds after its port was chosen; a connection of any program could have it by then."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(port._FIRST_FREE <= free_port() < first for _ in range(20))


def test_a_port_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        used = listening.getsockname()[1]
        monkeypatch.setattr(port, "_FIRST_FREE", used)
        monkeypatch.setattr(port, "_first_for_connections", lambda: used + 1)
        assert free_port() != used


def test_where_the_kernel_may_choose_every_port_it_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "_first_for_connections", lambda: 1_024)
    assert free_port() > 0
