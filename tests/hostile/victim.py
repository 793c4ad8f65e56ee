"""A job that others attack: it keeps a text in files, memory, its environment and shared memory, listens, and waits.

Run as `python -m tests.hostile.victim INPUT`, an input being JSON with `text`, `abstract` and `segment`. What only it
knows goes into `victim.json` in its job directory: the port on which it listens. It ends when its directory has `stop`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import socket
import sys
from pathlib import Path

from tests.hostile.isolation import require_isolation

IN_JOB, IN_TMP, SOCKET, KNOWN = "victim.txt", "victim-tmp.txt", "victim.sock", "victim.json"


def main() -> None:
    """Keep, listen and wait."""
    require_isolation()
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    text = str(given["text"])
    Path(IN_JOB).write_text(text, encoding="utf-8")
    Path(os.environ["TMPDIR"], IN_TMP).write_text(text, encoding="utf-8")
    with contextlib.suppress(OSError):  # a sandbox may refuse it
        Path("/dev/shm", given["abstract"]).write_text(text, encoding="utf-8")
    by_path, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    by_path.bind(SOCKET)  # relative, because a path may be too long for a socket
    abstract.bind("\0" + given["abstract"])
    for each in (by_path, abstract):
        each.listen()
    over_tcp, over_udp = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    over_udp.bind(("127.0.0.1", 0))
    over_udp.settimeout(0.05)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(given["segment"], 4096, 0o1600)  # create it; only this user may read it
    address = libc.shmat(segment, None, 0)
    if address not in (None, 2**64 - 1):
        ctypes.memmove(address, text.encode(), len(text))
    Path("known").write_text(json.dumps({"port": _port(over_tcp), "udp_port": _port(over_udp)}), encoding="utf-8")
    Path("known").replace(KNOWN)
    while not Path("stop").exists():
        with contextlib.suppress(OSError):  # there may be no connection
            asked, address = over_udp.recvfrom(64)
            over_udp.sendto(asked, address)
    libc.shmctl(segment, 0, None)  # remove it: it would outlive this process
    Path(SOCKET).unlink()  # a result has no sockets


def _port(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


if __name__ == "__main__":
    main()
