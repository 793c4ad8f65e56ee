"""A client that knows several entries of its grid: which it uses, and when it goes to the next."""

from __future__ import annotations

import asyncio
import http.server
import re
import socket
import sys
import threading
from collections.abc import Callable

import httpx
import pytest

from raygrid.client import AsyncClient, Client, sockets
from raygrid.client.calls import Call
from raygrid.client.connection import AsyncConnection, BlockingConnection
from raygrid.client.endpoint import Endpoint
from raygrid.errors import BusyError, ConnectionFailedError, SettingsError, UnavailableError
from tests.support.client_fakes import FakeTime, accepted, form_of, problem

URLS = ["http://a.test:8000", "http://b.test:8000", "http://c.test:8000"]

EntryAnswer = Callable[[], httpx.Response] | Exception


class Entries:
    """Entries with one scripted answer for each host; keeps the requests."""

    def __init__(self, **answers: EntryAnswer) -> None:
        self.answers = answers
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.answers[request.url.host.removesuffix(".test")]
        if isinstance(answer, Exception):
            raise answer
        return answer()

    @property
    def asked(self) -> str:
        """The hosts in the order in which they were asked."""
        return "".join(request.url.host[0] for request in self.requests)

    def client(self, time: FakeTime, url: str | list[str] = URLS, **policy: float) -> Client:
        """A client of these entries."""
        return Client(url, transport=httpx.MockTransport(self), retry=time.policy(**policy))


FAILURES: list[EntryAnswer] = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("silent"),
    httpx.ReadError("reset"),
    lambda: httpx.Response(502),
    lambda: httpx.Response(500, text="Internal Server Error"),
    lambda: problem("unavailable", 503, retry_after="5"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=("refused", "silent", "reset", "502", "500", "503"))
def test_an_entry_that_fails_is_left_for_the_next_with_the_same_job_at_once(failure: EntryAnswer) -> None:
    """The second try goes to another entry at once, even if the first one asked for a longer pause."""
    time = FakeTime()
    entries = Entries(a=failure, b=accepted)

    job = entries.client(time).submit(b"trade")

    assert entries.asked == "ab"
    assert sum(time.sleeps) <= 0.2
    assert form_of(entries.requests[0]) == form_of(entries.requests[1])
    assert ("jobId", None, job.job_id.encode()) in form_of(entries.requests[1])


@pytest.mark.parametrize("failure", FAILURES, ids=("refused", "silent", "reset", "502", "500", "503"))
def test_the_asynchronous_client_leaves_a_failing_entry_too(failure: EntryAnswer) -> None:
    """Both clients run the same flows over connections of their own."""
    entries = Entries(a=failure, b=accepted)

    async def submit() -> None:
        transport = httpx.MockTransport(entries)
        async with AsyncClient(URLS, transport=transport, retry=FakeTime().policy()) as client:
            await client.submit(b"trade")

    asyncio.run(submit())

    assert entries.asked == "ab"


def test_an_entry_that_answers_is_kept() -> None:
    """The dead first entry is not asked again before every call."""
    entries = Entries(a=httpx.ConnectError("refused"), b=accepted)
    client = entries.client(FakeTime())

    for _ in range(3):
        client.submit(b"trade")

    assert entries.asked == "abbb"


def test_after_the_last_entry_comes_the_first_again() -> None:
    """A grid whose entries were all away for a moment is found again."""
    time = FakeTime()
    entries = Entries(**dict.fromkeys("abc", httpx.ReadError("reset")))

    with pytest.raises(ConnectionFailedError, match=",".join(map(re.escape, URLS))):
        entries.client(time, retry_s=10).submit(b"trade")

    assert entries.asked[:6] == "abcabc"


def test_a_pause_that_every_entry_asked_for_is_kept() -> None:
    """If all parents refuse, none is asked again before its Retry-After."""
    time = FakeTime()
    entries = Entries(**dict.fromkeys("abc", lambda: problem("unavailable", 503, retry_after="7")))

    with pytest.raises(UnavailableError, match="said unavailable"):
        entries.client(time, retry_s=60).submit(b"trade")

    assert entries.asked.startswith("abcabc")
    assert [pause >= 7 for pause in time.sleeps[:6]] == [False, False, True, False, False, True]


def test_a_full_queue_is_no_reason_to_go_elsewhere() -> None:
    """The queue is the grid's, not the parent's: another entry would refuse as well."""
    time = FakeTime()
    entries = Entries(a=lambda: problem("busy", 429, retry_after="10"))

    with pytest.raises(BusyError):
        entries.client(time, retry_s=25).submit(b"trade")

    assert set(entries.asked) == {"a"}
    assert min(time.sleeps) >= 10


def test_two_calls_that_fail_at_one_entry_go_on_to_the_next_not_to_the_one_after() -> None:
    """Calls of several threads that fail together do not skip an entry."""
    endpoint = Endpoint("a,b,c")

    for _ in range(2):
        endpoint.leave("http://a")

    assert endpoint.entry == "http://b"


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("a:1,b:2", "http://a:1,http://b:2"),
        (" http://a/ , https://b ,", "http://a,https://b"),
        (["a", "b"], "http://a,http://b"),
        ("a,a", "http://a"),
        ("http://a/grid/", "http://a/grid"),
    ],
)
def test_entries_come_as_a_list_or_with_commas_between(given: str | list[str], seen: str) -> None:
    """RAYGRID_URL and --url are texts, so commas separate the entries; one entry needs no comma."""
    assert Client(given).url == seen


@pytest.mark.parametrize("url", ["", ",", [], "a,ftp://b", "a,http://user:secret@b"])
def test_a_malformed_entry_is_refused(url: str | list[str]) -> None:
    """A wrong entry among good ones would otherwise be noticed only at a failure."""
    with pytest.raises(SettingsError) as caught:
        Client(url)

    assert "secret" not in str(caught.value)


def test_a_path_before_the_grid_is_kept() -> None:
    """A grid behind an edge proxy may live below a path."""
    entries = Entries(a=accepted)

    entries.client(FakeTime(), "http://a.test/grid").submit(b"trade")

    assert entries.requests[0].url.path == "/grid/submit"


def test_the_environment_may_name_several_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """RAYGRID_URL takes the same values as --url."""
    from raygrid.client.default import find_grid

    monkeypatch.setenv("RAYGRID_URL", "a:1,b:2")
    assert find_grid()[0] == "a:1,b:2"
    assert find_grid(["c:3", "d:4"])[0] == "c:3,d:4"


@pytest.mark.parametrize("kind", [httpx.HTTPTransport, httpx.AsyncHTTPTransport])
@pytest.mark.parametrize("proxy", [True, False])
def test_a_proxy_of_the_environment_stays_in_use_for_grids_elsewhere(
    monkeypatch: pytest.MonkeyPatch, proxy: bool, kind: type[httpx.HTTPTransport] | type[httpx.AsyncHTTPTransport]
) -> None:
    """The client's own sockets are for direct connections: they would bypass a proxy that the site requires."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    if proxy:
        monkeypatch.setenv("http_proxy", "http://proxy.test:3128")

    assert (sockets.transport(Endpoint("http://grid.test"), kind) is None) is proxy
    assert isinstance(sockets.transport(Endpoint("http://localhost:8000"), kind), kind)


@pytest.mark.parametrize("blocking", [True, False])
def test_the_connections_of_a_client_are_probed_while_they_are_silent(blocking: bool) -> None:
    """A machine that loses power closes no connection; keep-alive probes find it within seconds."""
    seen = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    def look(response: httpx.Response) -> None:
        connection = response.extensions["network_stream"].get_extra_info("socket")
        seen.append(connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        if sys.platform == "linux":
            probes = [(socket.TCP_KEEPIDLE, 2), (socket.TCP_KEEPINTVL, 1), (socket.TCP_USER_TIMEOUT, 10_000)]
            assert all(connection.getsockopt(socket.IPPROTO_TCP, name) == value for name, value in probes)

    async def ask(endpoint: Endpoint) -> None:
        connection = AsyncConnection(endpoint, 5)
        async with connection.stream(Call("GET", "/")) as response:
            look(response)
        await connection.close()

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        endpoint = Endpoint(f"127.0.0.1:{server.server_port}")
        if blocking:
            connection = BlockingConnection(endpoint, 5)
            with connection.stream(Call("GET", "/")) as response:
                look(response)
            connection.close()
        else:
            asyncio.run(ask(endpoint))

    assert seen == [1]
