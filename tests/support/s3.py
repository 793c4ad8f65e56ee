"""An S3 for tests: moto's server in a process of its own, used over real HTTP, and a connection that can be cut."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx

from raygrid.local import free_port

SECRETS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret"}


class S3:
    """A running server."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def new_bucket(self) -> str:
        """Make a bucket; gives its name."""
        name = f"bucket-{uuid4().hex[:12]}"
        httpx.put(f"http://{self.host}:{self.port}/{name}", timeout=30).raise_for_status()
        return name

    def options(self, port: int | None = None) -> dict[str, Any]:
        """The value of `storage.blob_options`; with another port if a proxy is in between."""
        return {"endpoint": f"http://{self.host}:{port or self.port}", "region": "us-east-1", "allow_http": True}


@contextlib.contextmanager
def s3_server(host: str = "127.0.0.1") -> Iterator[S3]:
    """Run a server at an address of this machine, with the credentials for it in this process's environment."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    before = {name: os.environ.get(name) for name in SECRETS}
    os.environ.update(SECRETS)
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
                break
            assert process.poll() is None, "moto's server ended at once; is moto[server] installed?"
            assert time.monotonic() < deadline, "moto's server did not start"
            time.sleep(0.05)
        yield S3(host, port)
    finally:
        process.kill()
        process.wait()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Cable:
    """A TCP connection to a port through a thread, which can be cut: then no answer comes any more."""

    def __init__(self, to_port: int) -> None:
        self._to = to_port
        self._cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Break what is open, and refuse what comes."""
        self._cut.set()

    def mend(self) -> None:
        """Let connections through again."""
        self._cut.clear()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join(timeout=10)
        self._listener.close()

    def _work(self) -> None:
        while not self._closed.is_set():
            if self._cut.is_set():
                self._drop_all()
            readable, _, _ = select.select([self._listener, *self._pairs], [], [], 0.02)
            for each in readable:
                if each is self._listener:
                    self._accept()
                elif each in self._pairs:
                    self._carry(each)
        self._drop_all()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self._cut.is_set():
            client.close()
            return
        server = socket.create_connection(("127.0.0.1", self._to))
        self._pairs[client], self._pairs[server] = server, client

    def _carry(self, source: socket.socket) -> None:
        target = self._pairs[source]
        try:
            data = source.recv(256 * 1024)
            if data:
                target.sendall(data)
                return
        except OSError:
            pass
        for each in (source, target):
            self._pairs.pop(each, None)
            each.close()

    def _drop_all(self) -> None:
        for each in list(self._pairs):
            each.close()
        self._pairs.clear()
