"""The script by which keepalived decides whether a machine's entry is alive."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "raygrid-check-entry"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(shutil.which("bash") is None, reason="the check of an entry needs bash"),
]


@contextmanager
def entry(answers: list[bytes | None]) -> Iterator[int]:
    """An entry that gives exactly these answers, one a connection (None: silence)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    asked = b""
                    while not asked.endswith(b"\r\n\r\n"):  # bash sends line by line
                        asked += connection.recv(4096)
                    assert asked.startswith(b"GET /health/live HTTP/1.1\r\n")
                    if answer is None:
                        ended.wait(20)
                    else:
                        connection.sendall(answer)
            listener.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        ended.set()
        thread.join(timeout=10)


def check(port: int) -> tuple[bool, float]:
    """Whether the script finds the entry alive, and how long it took."""
    began = time.monotonic()
    done = subprocess.run([str(SCRIPT), "127.0.0.1", str(port)], check=False, timeout=10, capture_output=True)
    assert done.stdout + done.stderr == b""
    return done.returncode == 0, time.monotonic() - began


def test_an_entry_that_answers_200_is_alive() -> None:
    with entry([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]) as port:
        assert check(port)[0]


@pytest.mark.parametrize("status", [b"503 Service Unavailable", b"500 Internal Server Error", b"404 Not Found"])
def test_an_entry_with_any_other_answer_is_dead(status: bytes) -> None:
    """Ray's own entry answers 500 or 404 if no parent is behind it."""
    answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n"
    with entry([answer, answer]) as port:
        assert not check(port)[0]


def test_an_entry_that_refuses_is_dead_at_once() -> None:
    """A killed parent must not keep the address for longer than it takes to ask twice."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    alive, took_s = check(port)
    assert not alive
    assert took_s < 1.5


def test_an_entry_that_refuses_once_gets_a_second_look() -> None:
    """A listener that is being replaced is no reason to move the address."""
    with entry([b"", b"HTTP/1.1 200 OK\r\n\r\n"]) as port:
        assert check(port)[0]


def test_an_entry_that_stays_silent_is_dead_within_the_time_that_keepalived_gives() -> None:
    """A frozen parent accepts connections and sends nothing."""
    with entry([None]) as port:
        alive, took_s = check(port)
        assert not alive
        assert 2.5 < took_s < 4.5
