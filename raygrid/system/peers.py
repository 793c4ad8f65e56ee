"""Tells which user of this machine is at the other end of a connection over loopback (Linux).

The kernel's socket diagnostics know the owner of every socket. See sock_diag(7), <linux/inet_diag.h>.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

_SOCK_DIAG_BY_FAMILY, _REQUEST, _ERROR = 20, 1, 2
_NETLINK_SOCK_DIAG = 4
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_QUESTION = struct.Struct("=BBBBI")  # inet_diag_req_v2 without the id: family, protocol, extensions, padding, states
_ID = struct.Struct("!HH16s16s")  # of inet_diag_sockid: ports and addresses of both ends
_REST_OF_ID = struct.pack("=III", 0, 0xFFFF_FFFF, 0xFFFF_FFFF)  # any interface, no cookie
_ALL_STATES = 0xFFFF_FFFF
_OWNER_AT = _HEADER.size + 4 + _ID.size + len(_REST_OF_ID) + 12  # in the answer, an inet_diag_msg
_OWNER = struct.Struct("=II")  # user and inode
_ANSWER = 4_096
Address = tuple[str, int]


class Peers:
    """Finds the users of other ends; one thread uses it, and its owner closes it.

    Raises:
        OSError: the kernel has no socket diagnostics for this process.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        self._number = 0
        try:
            with _connection() as (one, other):
                if self.user_of(one.getsockname()[:2], other.getsockname()[:2]) != os.getuid():
                    raise OSError(errno.EOPNOTSUPP, "socket diagnostics do not show the owner of a socket")
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def user_of(self, theirs: Address, ours: Address) -> int | None:
        """The user id of the owner of the socket at the address `theirs`, which is connected to `ours`.

        None if there is none: it is on another machine, in another network namespace, or closed; the kernel may still
        answer for a closed socket, with root as its user. A user whom this process's user namespace does not know is
        65534.

        Raises:
            OSError: the kernel gave no answer.
        """
        family = socket.AF_INET6 if ":" in theirs[0] else socket.AF_INET
        packed = [socket.inet_pton(family, each[0]).ljust(16, b"\0") for each in (theirs, ours)]
        identity = _ID.pack(theirs[1], ours[1], *packed)
        question = _QUESTION.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + identity + _REST_OF_ID
        self._number = (self._number + 1) & 0xFFFF_FFFF
        header = _HEADER.pack(_HEADER.size + len(question), _SOCK_DIAG_BY_FAMILY, _REQUEST, self._number, 0)
        self._socket.sendto(header + question, (0, 0))
        while True:
            answer = self._socket.recv(_ANSWER)
            _, kind, _, number, _ = _HEADER.unpack_from(answer)
            if number == self._number:
                break
        if kind == _ERROR:
            error = -struct.unpack_from("=i", answer, _HEADER.size)[0]
            if error == errno.ENOENT:
                return None
            raise OSError(error, os.strerror(error), "socket diagnostics")
        user: int
        user, inode = _OWNER.unpack_from(answer, _OWNER_AT)
        return user if inode else None  # without an inode, no process has the socket any more


@contextlib.contextmanager
def _connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as one:
        other, _ = listening.accept()
        with other:
            yield one, other
