"""Which user is at the other end of a connection over loopback."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from raygrid.system.peers import Peers

OTHER = 33  # any user id but our own

pytestmark = pytest.mark.processes


@pytest.fixture
def peers() -> Iterator[Peers]:
    found = Peers()
    yield found
    found.close()


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_owner_of_the_other_end_is_found(peers: Peers, family: int, host: str) -> None:
    with (
        socket.create_server((host, 0), family=socket.AddressFamily(family)) as listening,
        socket.create_connection(listening.getsockname()[:2]) as theirs,
    ):
        ours, address = listening.accept()
        with ours:
            assert peers.user_of(address[:2], ours.getsockname()[:2]) == os.getuid()
            assert peers.user_of(ours.getsockname()[:2], theirs.getsockname()[:2]) == os.getuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs of another user")
def test_another_user_is_told_apart(peers: Peers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host, port = listening.getsockname()
        program = f"exec 3<>/dev/tcp/{host}/{port}; read -r line <&3"
        as_other = ["setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "bash", "-c", program]
        with subprocess.Popen(as_other) as client:
            ours, address = listening.accept()
            with ours:
                assert peers.user_of(address, (host, port)) == OTHER
                ours.sendall(b"end\n")
            assert client.wait(10) == 0


@pytest.mark.parametrize("has_sent", [False, True])
def test_an_end_that_was_closed_in_order_has_no_owner(peers: Peers, has_sent: bool) -> None:
    """The kernel keeps it for a while, and shows root as its user."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        if has_sent:
            theirs.sendall(b"POST /submit HTTP/1.1")
        theirs.close()
        ours, address = listening.accept()
        with ours:
            assert peers.user_of(address, listening.getsockname()) is None


def test_an_end_that_sends_no_more_has_its_owner(peers: Peers) -> None:
    """It still reads the answer."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as theirs,
    ):
        theirs.shutdown(socket.SHUT_WR)
        ours, address = listening.accept()
        with ours:
            assert peers.user_of(address, listening.getsockname()) == os.getuid()


def test_a_closed_end_has_no_owner(peers: Peers) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, address = listening.accept()
        with ours:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends at once, by a reset
            theirs.close()
            assert peers.user_of(address, listening.getsockname()) is None
