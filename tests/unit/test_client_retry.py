"""When the client tries again, for how long, and that trying again is safe."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NoReturn

import httpx
import pytest

from raygrid.client.retry import Backoff, RetryPolicy, retry_after_s
from raygrid.errors import BusyError, ConnectionFailedError, InvalidRequestError, UnavailableError
from tests.support.client_fakes import URL, Answer, Answers, FakeTime, accepted, form_of, problem


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("gone"),
        httpx.Response(502),
        httpx.Response(503),
        httpx.Response(500, text="Internal Server Error"),
        httpx.Response(404, text="Path '/submit' not found. Ping http://.../-/routes for available routes."),
        problem("busy", 429),
        problem("unavailable", 503),
    ],
    ids=str,
)
def test_a_submit_that_failed_on_the_way_is_sent_again_under_the_same_job_id(failure: Answer) -> None:
    """Connection loss and busy grids are retried, each time with the same jobId and the same content."""
    grid = Answers(failure, failure, accepted())

    job = grid.client().submit(b"trade")

    forms = [form_of(request) for request in grid.requests]
    assert len(forms) == 3
    assert forms[0] == forms[1] == forms[2]
    assert ("jobId", None, job.job_id.encode()) in forms[0]
    assert ("file", "input", b"trade") in forms[0]


@pytest.mark.parametrize(("word", "status"), [("invalid-request", 400), ("internal", 500), ("conflict", 409)])
def test_an_answer_that_will_not_change_is_not_asked_for_again(word: str, status: int) -> None:
    """A refusal of the grid itself ends the call at the first try."""
    grid = Answers(problem(word, status))

    with pytest.raises(Exception, match=f"said {word}"):
        grid.client().submit(b"trade")

    assert len(grid.requests) == 1


def test_the_grid_is_not_asked_again_before_the_time_it_asked_for() -> None:
    """A pause is never shorter than Retry-After."""
    time = FakeTime()
    grid = Answers(problem("busy", 429, retry_after="7"), accepted())

    grid.client(time).submit(b"trade")

    assert len(time.sleeps) == 1
    assert 7 <= time.sleeps[0] <= 7.2


def test_retries_end_with_the_budget_and_the_error_has_the_wait() -> None:
    """A grid that stays busy gets tries for retry_s seconds, then the caller gets the error."""
    time = FakeTime()
    grid = Answers(*[problem("busy", 429, retry_after="10") for _ in range(100)])

    with pytest.raises(BusyError, match="said busy") as caught:
        grid.client(time, retry_s=60).submit(b"trade")

    assert caught.value.retry_after_s == 10
    assert sum(time.sleeps) <= 60
    assert len(grid.requests) == 6


def test_a_url_where_nothing_ever_answered_is_given_up_soon_with_advice() -> None:
    """The error comes well before the retry time is over, and has the command that starts a grid."""
    time = FakeTime()
    grid = Answers(*[httpx.ConnectError("refused") for _ in range(100)])

    with pytest.raises(
        ConnectionFailedError, match=r"no grid answers at http://grid\.test .*raygrid up.*raygrid\.init"
    ):
        grid.client(time).submit(b"trade")

    assert sum(time.sleeps) <= 5


def test_a_grid_that_has_answered_before_gets_the_whole_budget() -> None:
    """A parent that restarts refuses connections for a while; a client that knows it waits."""
    time = FakeTime()
    grid = Answers(accepted(), *[httpx.ConnectError("refused") for _ in range(100)])
    client = grid.client(time)
    client.submit(b"trade")

    with pytest.raises(ConnectionFailedError, match=f"the grid at {URL} stopped answering"):
        client.submit(b"another")

    assert 50 <= sum(time.sleeps) <= 60


def test_an_unavailable_error_is_raised_for_a_proxy_without_a_parent() -> None:
    """A 502 that stays has no problem document and still becomes the right error."""
    with pytest.raises(UnavailableError, match="502"):
        Answers(httpx.Response(502)).client(retry_s=0).submit(b"trade")


def test_pauses_grow_twofold_up_to_the_cap_and_jitter_halves_them_at_most() -> None:
    """The backoff is exponential, bounded, and never less than half of its bound."""
    policy = RetryPolicy(base_s=1, cap_s=4, clock=lambda: 0.0, jitter=lambda: 0.0)
    low, high = (
        Backoff(policy),
        Backoff(RetryPolicy(base_s=1, cap_s=4, clock=lambda: 0.0, jitter=lambda: 1.0)),
    )

    assert [low.pause_s(1e9) for _ in range(5)] == [0.5, 1, 2, 2, 2]
    assert [high.pause_s(1e9) for _ in range(5)] == [1, 2, 4, 4, 4]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.5", 0.5), ("", 0.0), ("soon", 0.0), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0)],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str, seconds: float) -> None:
    """Numbers are seconds, a date in the past means now, and anything else means no pause."""
    assert retry_after_s(httpx.Response(503, headers={"Retry-After": header})) == seconds


def test_a_file_is_sent_whole_again_after_a_failure(tmp_path: Path) -> None:
    """A path and a file object are read from their beginning at every try."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"from a path")
    with path.open("rb") as file:
        file.seek(5)
        grid = Answers(httpx.ReadError("reset"), accepted(), httpx.ReadError("reset"), accepted())
        grid.client().submit(path)
        grid.client().submit(file)

    contents = [part for request in grid.requests for part in form_of(request) if part[0] == "file"]
    assert contents == [("file", "t.csv", b"from a path")] * 2 + [("file", "t.csv", b"a path")] * 2


def test_a_stream_that_cannot_seek_is_kept_for_a_second_try() -> None:
    """What can be read only once is held in memory, so that a retry sends it all."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    grid = Answers(httpx.ReadError("reset"), accepted())
    grid.client().submit(Pipe(b"once"))

    assert [form_of(request)[-1] for request in grid.requests] == [("file", "input", b"once")] * 2


def test_a_file_that_changes_while_it_is_sent_is_refused(tmp_path: Path) -> None:
    """The length was announced; other content under the same jobId would be a conflict at the next try."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"short")

    def change_and_fail(request: httpx.Request) -> NoReturn:
        path.write_bytes(b"longer than before")
        raise httpx.ReadError("reset")

    client = Answers(change_and_fail, accepted()).client()
    with pytest.raises(InvalidRequestError, match=r"t\.csv changed while it was being sent"):
        client.submit(path)
