"""The announcement of a head that was stopped on purpose, after which its workers stop instead of waiting for it.

`ray down` stops Ray on the head only, and a worker that loses its head must wait, because the head may be restarted. So
a stopped head listens on its own port for some time, announces the shutdown, and proves that it knows the cluster's
token:

    head:   raygrid-farewell, and a line feed
    worker: the same line, and 16 random bytes
    head:   HMAC-SHA256 of the message, with the token as the key

A worker keeps one idle connection to the head's port. When it ends, the worker connects again every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping

from raygrid.errors import SettingsError
from raygrid.system.home import expanded

MAGIC = b"raygrid-farewell\n"
NONCE_BYTES = 16
ASK_AGAIN_S = 1.0
TALK_S = 2.0
MAX_CALLERS = 500
# Longer than Ray keeps an idle connection.
IDLE_S = 300.0


def cluster_token(environment: Mapping[str, str] = os.environ) -> bytes:
    """Ray's token, from the sources that Ray uses; empty if the cluster has none."""
    if environment.get("RAY_AUTH_TOKEN"):
        return environment["RAY_AUTH_TOKEN"].encode()
    try:
        return expanded(environment.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").read_bytes().strip()
    except (OSError, SettingsError):
        return b""


def _proof(token: bytes, nonce: bytes) -> bytes:
    return hmac.new(token, MAGIC + nonce, hashlib.sha256).digest()


def announce_shutdown(port: int, token: bytes, for_s: float) -> int:
    """Announce the shutdown on the head's port for some seconds; gives the number of informed workers."""
    until = time.monotonic() + for_s
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:
            try:
                listener.bind(("", port))
                break
            except OSError:  # a process of Ray's head still has the port
                if time.monotonic() > until:
                    return 0
                time.sleep(0.1)
        return asyncio.run(_answer(listener, token, until - time.monotonic()))


async def _answer(listener: socket.socket, token: bytes, for_s: float) -> int:
    """Answer all callers concurrently, so that a slow caller does not delay others."""
    informed = callers = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal informed, callers
        callers += 1
        try:
            if callers <= MAX_CALLERS:  # a refused caller tries again
                async with asyncio.timeout(TALK_S):
                    if await _inform(reader, writer, token):
                        informed += 1
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            callers -= 1
            writer.close()

    server = await asyncio.start_server(answer, sock=listener, backlog=1024)
    await asyncio.sleep(for_s)
    server.close()
    if answers := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(answers, timeout=TALK_S)
    return informed


async def _inform(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: bytes) -> bool:
    writer.write(MAGIC)
    asked = await reader.readexactly(len(MAGIC) + NONCE_BYTES)
    if not asked.startswith(MAGIC):
        return False  # a process of Ray that looks for its head
    writer.write(_proof(token, asked[len(MAGIC) :]))
    await writer.drain()
    return True


def _notice_silence(connection: socket.socket) -> None:
    """Let the kernel end the connection within seconds if the head loses power and sends nothing."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 5), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3)):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)


class HeadWatch:
    """Watches the head from a worker, in a thread; `head_stopped` is set once the head announces its shutdown."""

    def __init__(self, address: tuple[str, int], token: bytes) -> None:
        self._address = address
        self._token = token
        self._closed = threading.Event()
        self._connection: socket.socket | None = None
        self._thread = threading.Thread(target=self._watch, name="raygrid-head-watch", daemon=True)
        self.head_stopped = threading.Event()
        self.reachable = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread."""
        self._closed.set()
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(OSError):  # already closed
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(timeout=TALK_S + 1)

    def _watch(self) -> None:
        while not self._closed.is_set() and not self.head_stopped.is_set():
            try:
                with socket.create_connection(self._address, timeout=TALK_S) as connection:
                    self._connection = connection
                    _notice_silence(connection)
                    if self._closed.is_set():  # `close` ran before it could see this connection
                        return
                    if self._listen(connection):
                        self.head_stopped.set()
            except OSError:
                self.reachable.clear()
            finally:
                self._connection = None
            self._closed.wait(ASK_AGAIN_S)

    def _listen(self, connection: socket.socket) -> bool:
        """Keep the connection until it ends; gives whether the head announced its shutdown on it."""
        connection.settimeout(IDLE_S)
        greeting = b""
        while len(greeting) < len(MAGIC):
            more = connection.recv(len(MAGIC) - len(greeting))
            if not more:
                return False
            greeting += more
            if not MAGIC.startswith(greeting):
                # These are bytes of gRPC, so the head runs. From here on only the end of the connection matters.
                self.reachable.set()
                while connection.recv(4096):
                    pass
                return False
        connection.settimeout(TALK_S)
        nonce = secrets.token_bytes(NONCE_BYTES)
        connection.sendall(MAGIC + nonce)
        with connection.makefile("rb") as stream:
            return hmac.compare_digest(stream.read(hashlib.sha256().digest_size), _proof(self._token, nonce))
