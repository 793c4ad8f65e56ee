"""First mistakes with the client: a wrong address, a failed job of a map, an interrupted map."""

from __future__ import annotations

import ast
import http.server
import re
import socket
import threading
import time
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import raygrid
from raygrid.client import AsyncClient, Client, default
from raygrid.errors import (
    ConnectionFailedError,
    InvalidRequestError,
    JobCancelledError,
    JobFailedError,
    NotAuthorizedError,
    RaygridError,
)
from tests.support.client_fakes import (
    URL,
    Answer,
    Answers,
    FakeTime,
    batch_accepted,
    end,
    part,
    problem,
    stream,
    zip_of,
)


@pytest.fixture(autouse=True)
def _no_grid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No grid is configured anywhere, and none is left for the next test."""
    for name in ("RAYGRID_URL", "RAYGRID_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(default, "_default", None)
    monkeypatch.setattr(raygrid, "_own_grid", None)


# --- connect --------------------------------------------------------------------------------------------------------


@contextmanager
def web_server(status: int, body: bytes, kind: str) -> Iterator[str]:
    """A server of another kind, which answers all requests with this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def shown(error: BaseException) -> str:
    """What Python prints for it."""
    return "".join(traceback.format_exception(error))


def refused(url: str, kind: type[RaygridError], api_key: str | None = None) -> str:
    """Connect where no grid can be used; gives the message, after checking that it has no chain."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        raygrid.connect(url, api_key)
    assert time.monotonic() - began < 10
    assert default._default is None
    assert not re.search("httpx|httpcore|anyio|direct cause|another exception", shown(caught.value))
    return str(caught.value)


def test_connect_fails_at_once_where_no_grid_answers_and_has_the_remedy() -> None:
    """If nothing listens on the port, the advice is to check host and port, or to start a grid."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    text = refused(url, ConnectionFailedError)
    assert f"no grid answers at {url}" in text
    assert re.search(r"Check the host and the port.*raygrid up.*RAYGRID_URL", text)


def test_connect_fails_soon_at_a_silent_server() -> None:
    """A port that takes connections and never answers costs a few seconds, not the client's whole retry time."""
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(ConnectionFailedError, match="no grid answers"),
    ):
        raygrid.connect(f"http://127.0.0.1:{silent.getsockname()[1]}", contact_s=0.3)


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (404, b"<html>not found</html>", "text/html", "check that the URL is the grid's"),
        (200, b"<html>welcome</html>", "text/html", "is not a grid's; check the URL"),
    ],
)
def test_connect_reports_a_server_that_is_no_grid(status: int, body: bytes, kind: str, text: str) -> None:
    """The server may have such a page or not."""
    with web_server(status, body, kind) as url:
        assert text in refused(url, RaygridError)


def test_connect_reports_a_server_that_has_no_encryption() -> None:
    """TLS libraries name a wrong version number, which says nothing to most people."""
    with web_server(200, b"{}", "application/json") as url:
        assert "speaks http, not https" in refused(url.replace("http://", "https://"), ConnectionFailedError)


@pytest.mark.parametrize(
    ("key", "text"), [(None, "requires an API key; set RAYGRID_API_KEY"), ("wrong", "does not know")]
)
def test_connect_reports_a_missing_or_wrong_key(key: str | None, text: str) -> None:
    """The error comes before any job is submitted."""
    body = b'{"type": "urn:raygrid:problem:unauthorized", "title": "unauthorized", "status": 401}'
    with web_server(401, body, "application/problem+json") as url:
        assert text in refused(url, NotAuthorizedError, **({"api_key": key} if key else {}))


def test_connect_asks_once_and_other_functions_ask_nothing_else() -> None:
    """`connect` requests `/pricers`; `raygrid.submit` sends the job alone."""
    grid = Answers(httpx.Response(200, json={"pricers": []}), httpx.Response(202, json={}))
    raygrid.connect(URL, transport=httpx.MockTransport(grid))
    raygrid.submit(b"x")
    assert [request.url.path for request in grid.requests] == ["/pricers", "/submit"]


def test_errors_of_later_calls_have_no_chain() -> None:
    """If a grid goes away there is one message, without the HTTP library's traceback."""
    grid = Answers(*[httpx.ConnectError("refused")] * 9)
    with pytest.raises(ConnectionFailedError) as caught:
        grid.client(retry_s=0.0).submit(b"x")
    assert "direct cause" not in shown(caught.value)
    assert "another exception" not in shown(caught.value)


# --- a job of a map that failed -------------------------------------------------------------------------------------


def failing(job_ids: list[str], **of_failed: str) -> Answers:
    """A grid on which the second of two jobs fails."""
    ok = part(job_ids[0], 1, zip_of(stdout__txt="1"))
    bad = part(job_ids[1], 2, zip_of(stderr__txt="no curve\n"), "failed", reason="exit_code", message="exited with 3")
    return Answers(batch_accepted, stream(ok, bad, end()))


def test_a_failed_job_of_a_map_is_named_by_index_input_job_and_batch(tmp_path: Path) -> None:
    """The message of the error that a loop over the results raises; the attributes are those of the job's own error."""
    path = tmp_path / "usd.csv"
    path.write_bytes(b"x")
    jobs = failing(["a", "b"]).client().map({"a": b"x", "b": path}, batch_id="night")

    with pytest.raises(JobFailedError) as caught:
        list(jobs.results())

    text = "input 1 (usd.csv), job b, batch night: exited with 3; its stderr ends with:\n    no curve"
    assert str(caught.value) == text
    assert (caught.value.job_id, caught.value.reason, caught.value.message) == ("b", "exit_code", "exited with 3")
    with pytest.raises(JobFailedError, match=r"^job b failed: exited with 3"):
        jobs[1].result()


def test_errors_that_are_given_in_the_place_of_results_are_named_as_well() -> None:
    """`return_errors`, of the module's map, and for jobs that were refused or cancelled."""
    cancelled = part("b", 2, b"", "cancelled")
    refusal = {"jobId": "c", "problem": {"type": "urn:raygrid:problem:invalid-request", "detail": "no such site"}}
    answer = httpx.Response(202, json={"batchId": "night", "refused": [refusal]})
    grid = Answers(httpx.Response(200, json={}), answer, stream(part("a", 1, zip_of()), cancelled, end()))
    raygrid.connect(URL, transport=httpx.MockTransport(grid))

    _, second, third = raygrid.map({"a": b"x", "b": b"x", "c": b"x"}, batch_id="night", return_errors=True)

    assert isinstance(second, JobCancelledError)
    assert str(second) == "input 1 (input), job b, batch night: job b was cancelled, so it has no result"
    assert isinstance(third, InvalidRequestError)
    assert str(third) == "input 2 (input), job c, batch night: no such site"


async def test_an_async_batch_names_a_failed_job_in_the_same_words() -> None:
    """The client for event loops."""
    grid = failing(["a", "b"])
    client = AsyncClient(URL, transport=httpx.MockTransport(grid), retry=FakeTime().policy())
    jobs = await client.map({"a": b"x", "b": b"x"}, batch_id="night")
    with pytest.raises(JobFailedError, match=r"^input 1 \(input\), job b, batch night: exited with 3"):
        [each async for each in jobs.results()]


# --- a map that was interrupted -------------------------------------------------------------------------------------


def interrupted(*answers: Answer, api_key: str | None = None) -> list[str]:
    """The results that `raygrid.map` gives with these answers before it is interrupted by Ctrl-C."""
    grid = Answers(httpx.Response(200, json={}), *answers)
    raygrid.connect(URL, api_key, transport=httpx.MockTransport(grid), plain_http=True)
    seen: list[str] = []

    def go_through() -> None:
        seen.extend(result.stdout for result in raygrid.map({"a": b"x", "b": b"x"}, batch_id="night"))

    with pytest.raises(KeyboardInterrupt):
        go_through()
    return seen


def ctrl_c(_request: httpx.Request) -> httpx.Response:
    """Ctrl-C while a request is pending."""
    raise KeyboardInterrupt


def cut() -> httpx.Response:
    """A stream that gives the first of two results and ends."""
    return stream(part("a", 1, zip_of(stdout__txt="1")), end("more"))


def test_an_interrupted_map_prints_the_batch_and_how_to_cancel_it_and_come_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The interrupt is raised again, and stderr shows lines of code and commands for this grid."""
    assert interrupted(batch_accepted, cut(), ctrl_c) == ["1"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "The jobs of batch night that have not ended go on." in err
    lines = [line.strip() for line in err.splitlines()]
    assert f"for result in raygrid.connect('{URL}').batch('night').results(): print(result)" in lines
    assert f"raygrid.connect('{URL}').cancel_batch('night')" in lines
    assert f"raygrid --url {URL} result --batch night -o results --wait 60" in lines
    assert f"raygrid --url {URL} cancel --batch night" in lines
    assert "API key" not in err
    for line in lines:
        if line.startswith(("for ", "raygrid.connect")):
            ast.parse(line)


def test_an_interrupt_while_the_inputs_are_posted_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Some jobs may be on the grid by then; the batch's id was chosen before."""
    assert interrupted(ctrl_c) == []
    assert "batch night" in capsys.readouterr().err


def test_a_map_that_is_left_between_two_results_prints_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C in the body of the loop looks like this from inside, and so does `break`."""
    grid = Answers(httpx.Response(200, json={}), batch_accepted, cut(), stream(part("b", 2, zip_of()), end()))
    raygrid.connect(URL, transport=httpx.MockTransport(grid))
    results = raygrid.map({"a": b"x", "b": b"x"}, batch_id="night")
    next(results)
    assert isinstance(results, Generator)
    results.close()
    err = capsys.readouterr().err
    assert err.startswith("raygrid.map was left before its last result. The jobs of batch night")
    assert "cancel_batch('night')" in err

    grid.answers = [batch_accepted, stream(part("a", 1, zip_of()), part("b", 2, zip_of()), end())]
    for _ in raygrid.map({"a": b"x", "b": b"x"}, batch_id="night"):
        pass
    assert capsys.readouterr().err == ""


def test_the_lines_need_no_url_if_raygrid_url_names_the_grid(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """RAYGRID_URL names it, here and in the next process."""
    monkeypatch.setenv("RAYGRID_URL", URL)
    interrupted(batch_accepted, ctrl_c)
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert "raygrid.connect().cancel_batch('night')" in lines
    assert "raygrid cancel --batch night" in lines


def test_a_key_that_was_given_in_code_is_asked_for_and_never_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines work once RAYGRID_API_KEY is set."""
    interrupted(batch_accepted, ctrl_c, api_key="0123456789abcdef")
    err = capsys.readouterr().err
    assert "RAYGRID_API_KEY" in err
    assert "0123456789abcdef" not in err


def test_a_grid_that_ends_with_this_process_is_described_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The grid was started by raygrid.init(): jobs go on when it runs again."""
    monkeypatch.setattr(raygrid, "_own_grid", type("Grid", (), {"url": URL}))
    interrupted(batch_accepted, ctrl_c)
    assert "This process started the grid" in capsys.readouterr().err


def test_a_map_that_ends_or_fails_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Only an interrupt does."""
    grid = failing(["a", "b"])
    grid.answers.insert(0, httpx.Response(200, json={}))
    raygrid.connect(URL, transport=httpx.MockTransport(grid))
    with pytest.raises(JobFailedError):
        list(raygrid.map({"a": b"x", "b": b"x"}, batch_id="night"))
    assert capsys.readouterr() == ("", "")


def test_any_client_has_contact() -> None:
    """It is for programs that make clients without `connect`."""
    grid = Answers(httpx.Response(200, json={"pricers": []}), problem("unavailable", 503), problem("unavailable", 503))
    with Client(URL, transport=httpx.MockTransport(grid)) as client:
        client.contact()
        with pytest.raises(RaygridError, match="said unavailable"):
            client.contact(within_s=0.0)
