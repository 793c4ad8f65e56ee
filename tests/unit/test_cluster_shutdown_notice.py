"""How a head that stops on purpose notifies its workers, and which notices they accept."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from raygrid.cluster import shutdown_notice
from raygrid.cluster.shutdown_notice import MAGIC, HeadWatch, announce_shutdown, cluster_token

TOKEN = b"the token of this cluster"
GRPC_GREETING = b"\x00\x00\x18\x04\x00\x00\x00\x00\x00" + bytes(24)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers ask again sooner than usual."""
    monkeypatch.setattr(shutdown_notice, "ASK_AGAIN_S", 0.05)


@pytest.fixture
def port() -> int:
    """A port on which no process listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def watching(port: int, token: bytes = TOKEN) -> Iterator[HeadWatch]:
    watch = HeadWatch(("127.0.0.1", port), token)
    watch.start()
    try:
        yield watch
    finally:
        watch.close()


@contextmanager
def announcing_shutdown(port: int, for_s: float, token: bytes = TOKEN) -> Iterator[Future[int]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(announce_shutdown, port, token, for_s)


@contextmanager
def head_that(speaks: Callable[[socket.socket], object], port: int = 0) -> Iterator[tuple[int, threading.Event]]:
    """A listener whose connections `speaks` handles; the event is set once it has handled one."""
    spoke = threading.Event()

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    speaks(connection)
                except OSError:
                    continue
            spoke.set()

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], spoke
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=10)


def test_a_worker_is_notified_that_its_head_has_stopped(port: int) -> None:
    with watching(port) as watch, announcing_shutdown(port, 0.4) as reported:
        assert watch.head_stopped.wait(30)
        assert reported.result() == 1


def test_a_worker_ignores_a_head_of_another_cluster(port: int) -> None:
    with watching(port) as watch, announcing_shutdown(port, 0.5, b"another token") as reported:
        assert reported.result() >= 1  # the greeting was sent
        assert not watch.head_stopped.is_set()


@pytest.mark.parametrize("nonsense", [MAGIC + bytes(32), MAGIC, MAGIC[:5], b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_worker_ignores_a_notice_without_proof(nonsense: bytes) -> None:
    with head_that(lambda connection: connection.sendall(nonsense)) as (port, spoke), watching(port) as watch:
        assert spoke.wait(30)
        spoke.clear()
        assert spoke.wait(30)  # the worker has connected again, so it has judged the first answer
        assert not watch.head_stopped.is_set()


def test_a_proof_is_of_no_use_a_second_time(port: int) -> None:
    """A recorded announcement cannot be replayed to another worker."""
    with announcing_shutdown(port, 0.5), closing(until_connected(port)) as connection:
        assert connection.recv(len(MAGIC)) == MAGIC
        connection.sendall(MAGIC + bytes(16))
        overheard = connection.recv(32)

    assert len(overheard) == 32

    def repeat(connection: socket.socket) -> None:
        connection.sendall(MAGIC)
        connection.recv(100)
        connection.sendall(overheard)

    with head_that(repeat) as (other, spoke), watching(other) as watch:
        assert spoke.wait(30)
        spoke.clear()
        assert spoke.wait(30)
        assert not watch.head_stopped.is_set()


def until_connected(port: int) -> socket.socket:
    deadline = time.monotonic() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_head_that_dies_has_not_announced_its_shutdown(port: int) -> None:
    """Its connection ends without an announcement after its greeting; the worker goes on waiting for it."""
    with head_that(lambda connection: connection.sendall(GRPC_GREETING), port) as (_, spoke), watching(port) as watch:
        assert spoke.wait(30)
        assert watch.reachable.wait(30)
    assert not watch.head_stopped.is_set()


def test_a_worker_that_was_connected_all_along_is_notified(port: int) -> None:
    """The head's gRPC server ends, and the announcement takes its port."""
    stopping = threading.Event()

    def live(connection: socket.socket) -> None:
        connection.sendall(GRPC_GREETING)
        stopping.wait(10)

    with ExitStack() as stack:
        with head_that(live, port):
            watch = stack.enter_context(watching(port))
            assert watch.reachable.wait(30)
            stopping.set()
        stack.enter_context(announcing_shutdown(port, 0.5))
        assert watch.head_stopped.wait(30)


def test_an_unreachable_head_has_not_stopped_and_the_watch_can_be_closed(port: int) -> None:
    with watching(port) as watch:
        assert not watch.head_stopped.wait(0.3)
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert not watch._thread.is_alive()


def test_a_watch_with_a_silent_connection_can_be_closed() -> None:
    silent = threading.Event()
    with head_that(lambda _: silent.wait(10)) as (port, _), watching(port) as watch:
        deadline = time.monotonic() + 30
        while watch._connection is None:
            assert time.monotonic() < deadline
        began = time.monotonic()
        watch.close()
        assert time.monotonic() - began < 1
        assert not watch._thread.is_alive()
        silent.set()


def test_a_watch_that_is_closed_while_it_connects_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` finds no connection to end; the one that opens a moment later is closed as well."""
    connecting, closing_now, silent = threading.Event(), threading.Event(), threading.Event()
    connect = socket.create_connection

    def slow(address: tuple[str, int], timeout: float) -> socket.socket:
        connecting.set()
        assert closing_now.wait(30)
        return connect(address, timeout)

    with head_that(lambda _: silent.wait(10)) as (port, _):
        monkeypatch.setattr(socket, "create_connection", slow)
        watch = HeadWatch(("127.0.0.1", port), TOKEN)
        watch.start()
        assert connecting.wait(30)
        watch._closed.set()
        closing_now.set()
        watch._thread.join(timeout=2)
        ended = not watch._thread.is_alive()
        silent.set()
        assert ended


def test_many_workers_are_notified_at_once(port: int) -> None:
    with ExitStack() as stack:
        watches = [stack.enter_context(watching(port)) for _ in range(100)]
        reported = stack.enter_context(announcing_shutdown(port, 1))
        assert all(watch.head_stopped.wait(30) for watch in watches)
        assert reported.result() == 100


def test_silent_callers_keep_no_worker_waiting(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty of them, one after the other, would take longer than an announcement lasts."""
    monkeypatch.setattr(shutdown_notice, "TALK_S", 0.5)
    with ExitStack() as stack:
        reported = stack.enter_context(announcing_shutdown(port, 1.5))
        silent = [stack.enter_context(closing(until_connected(port))) for _ in range(50)]
        watch = stack.enter_context(watching(port))
        assert watch.head_stopped.wait(30)
        silent[0].settimeout(5)
        assert silent[0].recv(100) == MAGIC
        assert silent[0].recv(100) == b""  # and they are not kept
        assert reported.result() == 1


def test_too_many_callers_are_turned_away(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown_notice, "MAX_CALLERS", 3)
    monkeypatch.setattr(shutdown_notice, "TALK_S", 0.3)
    with ExitStack() as stack:
        reported = stack.enter_context(announcing_shutdown(port, 1))
        heard = []
        for _ in range(4):
            caller = stack.enter_context(closing(until_connected(port)))
            heard.append(caller.recv(len(MAGIC)))
        assert heard == [MAGIC, MAGIC, MAGIC, b""]
        watch = stack.enter_context(watching(port))
        assert watch.head_stopped.wait(30)  # it asks again, and by then there is room
        assert reported.result() == 1


def test_callers_that_send_garbage_or_hang_up_do_no_harm(port: int, caplog: pytest.LogCaptureFixture) -> None:
    with ExitStack() as stack:
        reported = stack.enter_context(announcing_shutdown(port, 0.8))
        for words in (b"", b"x", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(500), MAGIC, bytes(100_000)):
            with closing(until_connected(port)) as caller:
                caller.sendall(words)
        with closing(until_connected(port)) as caller:
            # Hangs up with a reset.
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        watch = stack.enter_context(watching(port))
        assert watch.head_stopped.wait(30)
        assert reported.result() == 1
    assert caplog.records == []


def test_a_caller_that_is_no_worker_gets_no_proof(port: int) -> None:
    with announcing_shutdown(port, 0.5), closing(until_connected(port)) as caller:
        caller.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        assert caller.recv(len(MAGIC)) == MAGIC
        assert caller.recv(100) == b""


def test_the_announcement_waits_for_its_port(port: int) -> None:
    """The head's last process may hold it for a moment."""
    with ExitStack() as stack:
        holder = stack.enter_context(socket.create_server(("", port)))
        reported = stack.enter_context(announcing_shutdown(port, 0.8))
        watch = stack.enter_context(watching(port))
        assert not watch.head_stopped.wait(0.2)
        holder.close()
        assert watch.head_stopped.wait(30)
        assert reported.result() == 1


def test_an_announcement_that_never_gets_its_port_ends_in_time(port: int) -> None:
    with socket.create_server(("", port)):
        began = time.monotonic()
        assert announce_shutdown(port, TOKEN, 0.3) == 0
        assert time.monotonic() - began < 2


def test_the_token_is_found_where_ray_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cluster_token({}) == b""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text("of home\n")
    (tmp_path / "other").write_text("of a path\n")

    assert cluster_token({}) == b"of home"
    assert cluster_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}) == b"of a path"
    assert cluster_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "other"), "RAY_AUTH_TOKEN": "set"}) == b"set"
