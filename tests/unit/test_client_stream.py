"""The results stream: cut anywhere, broken anywhere, every result comes exactly once."""

from __future__ import annotations

from collections.abc import Sequence

import httpx
import pytest

from raygrid.client import BatchJobs
from raygrid.client.multipart import BrokenStreamError, PartsParser, ResultPart, StreamEnd
from raygrid.errors import (
    ConnectionFailedError,
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    ResultExpiredError,
    WaitTimeoutError,
)
from raygrid.models import JobState
from tests.support.client_fakes import (
    BOUNDARY,
    Answers,
    FakeTime,
    batch_accepted,
    end,
    part,
    problem,
    stream,
    zip_of,
)

TYPE = f"multipart/mixed; boundary={BOUNDARY}"
TRICKY = b"\r\n--grid-part\r\n--grid-partsX\r\r\n\r\n--" + b"\x00\xff"
STREAM = (
    part("a", 1, TRICKY)
    + part("b", 2, b"", state="cancelled")
    + part("c", 3, b"PK", state="failed", reason="exit_code", exit_code="3", message="no curve für EUR\r\n100%")
    + end()
)
EXPECTED = [
    ResultPart("a", JobState.DONE, 1, body=TRICKY),
    ResultPart("b", JobState.CANCELLED, 2),
    ResultPart("c", JobState.FAILED, 3, "exit_code", 3, "no curve für EUR\r\n100%", b"PK"),
    StreamEnd(complete=True),
]


@pytest.mark.parametrize("cut", range(len(STREAM) + 1))
def test_a_stream_cut_in_two_at_any_byte_gives_the_same_parts(cut: int) -> None:
    """The cuts between the network's chunks make no difference."""
    parser = PartsParser(TYPE)

    assert parser.feed(STREAM[:cut]) + parser.feed(STREAM[cut:]) == EXPECTED


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_stream_in_tiny_chunks_gives_the_same_parts(size: int) -> None:
    """The same holds byte by byte."""
    parser = PartsParser(TYPE)
    parts = [p for at in range(0, len(STREAM), size) for p in parser.feed(STREAM[at : at + size])]

    assert parts == EXPECTED


@pytest.mark.parametrize(("body", "state"), [(b"PK-result", "done"), (b"", "cancelled")])
def test_a_part_counts_when_its_length_is_reached_not_when_the_next_one_begins(body: bytes, state: str) -> None:
    """The boundary behind a part is written with the next part, which may be an hour away."""
    whole = part("a", 1, body, state).removesuffix(b"\r\n")
    parser = PartsParser(TYPE)

    assert parser.feed(whole[:-1]) == []
    [ended] = parser.feed(whole[-1:])
    assert isinstance(ended, ResultPart)
    assert ended.job_id == "a"


@pytest.mark.parametrize(
    "nonsense",
    [
        b"<html>no stream</html>",
        f"--{BOUNDARY}\r\nRaygrid-Job-Id: a\r\nContent-Length: x\r\n\r\n".encode(),
        f"--{BOUNDARY}\r\nContent-Length: 0\r\n\r\n".encode(),
        part("a", 1).replace(b"Content-Length: 0", b"Content-Length: 5") + end(),
        part("a", 1, state="melting"),
    ],
)
def test_bytes_that_are_no_stream_are_an_error(nonsense: bytes) -> None:
    """Nonsense is an error of its own, not a result."""
    parser = PartsParser(TYPE)
    with pytest.raises(BrokenStreamError):
        parser.feed(nonsense)


@pytest.mark.parametrize("content_type", ["", "text/html", "multipart/mixed", "application/zip"])
def test_a_content_type_without_a_boundary_is_refused(content_type: str) -> None:
    """Without a boundary the body cannot be parsed."""
    with pytest.raises(BrokenStreamError):
        PartsParser(content_type)


def batch_of(
    grid: Answers, time: FakeTime | None = None, ids: Sequence[str] = ("a", "b", "c"), **policy: float
) -> BatchJobs:
    """A client's batch of jobs with these ids; the grid's first answer accepts the submit."""
    grid.answers.insert(0, batch_accepted)
    return grid.client(time, None, **policy).map(dict.fromkeys(ids, b"x"))


def test_jobs_come_as_they_end_and_their_endings_need_no_further_request() -> None:
    """The state of each job, done, cancelled or failed, comes from the stream alone."""
    zipped = zip_of(stderr__txt="it said: no curve")
    body = (
        part("c", 1, zip_of(stdout__txt="42"))
        + part("a", 2, b"", "cancelled")
        + part("b", 3, zipped, "failed", reason="exit_code", exit_code="3", message="exited with 3")
        + part("d", 4)
        + end()
    )
    batch = batch_of(Answers(stream(body)), ids="abcd")

    assert [job.job_id for job in batch.as_completed()] == ["c", "a", "b", "d"]
    a, b, c, d = batch
    assert c.result().stdout == "42"
    with pytest.raises(JobCancelledError):
        a.result()
    with pytest.raises(JobFailedError, match="exited with 3") as caught:
        b.result()
    assert (caught.value.exit_code, caught.value.stderr_tail) == (3, "it said: no curve")
    assert str(caught.value) == "job b failed: exited with 3; its stderr ends with:\n    it said: no curve"
    assert b.result(even_if_failed=True).stderr == "it said: no curve"
    with pytest.raises(ResultExpiredError):
        d.result()


def test_a_result_that_is_gone_is_an_error_with_the_grids_reason() -> None:
    """A part that reports its result as gone raises ResultExpiredError, whatever its body holds."""
    words = {"problem": "urn:raygrid:problem:result-expired", "problem_detail": "it is gone; 100% für immer"}
    raw = part("a", 1, b"", **words).replace(b"urn%3Araygrid%3Aproblem%3A", b"urn:raygrid:problem:")
    batch = batch_of(Answers(stream(raw + part("b", 2, b"PK", **words) + end())), ids="ab")

    for job in batch.as_completed():
        with pytest.raises(ResultExpiredError, match="it is gone; 100% für immer"):
            job.result()


BROKEN_AT = len(part("a", 1, b"A"))


@pytest.mark.parametrize("keep", range(0, BROKEN_AT + len(part("b", 2, b"B")) + 1, 3))
@pytest.mark.parametrize("error", [httpx.ReadError("reset"), httpx.ReadTimeout("stalled"), None])
def test_a_stream_that_breaks_anywhere_is_resumed_behind_the_last_whole_part(
    keep: int, error: Exception | None
) -> None:
    """No job comes twice, none is lost, and the next request begins at the last part that was taken."""
    parts = [part("a", 1, b"A"), part("b", 2, b"B"), part("c", 3, b"C")]

    def rest(request: httpx.Request) -> httpx.Response:
        cursor = int(request.url.params["cursor"])
        return stream(*parts[cursor:], end())

    grid = Answers(stream(b"".join(parts)[:keep], error=error), rest)
    batch = batch_of(grid)

    assert [(job.job_id, job.result().data) for job in batch.as_completed()] == [
        ("a", b"A"),
        ("b", b"B"),
        ("c", b"C"),
    ]
    assert len(grid.requests) == 3


def test_a_stream_that_ends_with_more_is_asked_for_again() -> None:
    """`more` is no failure: the next stream begins at the cursor, without a pause."""
    time = FakeTime()
    grid = Answers(stream(part("a", 5), end("more")), stream(part("b", 9), part("c", 12), end()))
    batch = batch_of(grid, time)

    assert [job.job_id for job in batch.as_completed()] == ["a", "b", "c"]
    assert [request.url.params["cursor"] for request in grid.requests[1:]] == ["0", "5"]
    assert sum(time.sleeps) == 0


def test_an_empty_stream_is_asked_for_again_after_a_pause() -> None:
    """A grid that ends its streams at once does not make the client spin."""
    time = FakeTime()
    grid = Answers(stream(end("more")), stream(end("more")), stream(part("a", 1), end()))
    batch = batch_of(grid, time, ids="a")

    assert len(list(batch.as_completed())) == 1
    assert time.sleeps[:2] == [0.2, 0.2]


def test_a_grid_that_is_busy_or_restarting_under_a_stream_is_waited_for() -> None:
    """429, 503 and refused connections are retried as for any call."""
    time = FakeTime()
    grid = Answers(problem("busy", 429, retry_after="3"), httpx.ConnectError("refused"), stream(part("a", 1), end()))
    batch = batch_of(grid, time, ids="a")

    assert [job.job_id for job in batch.as_completed()] == ["a"]
    assert time.sleeps[0] >= 3


def test_a_stream_that_never_works_is_given_up_within_the_budget() -> None:
    """The error states that the batch goes on."""
    time = FakeTime()
    grid = Answers(*[stream(b"nonsense") for _ in range(100)])
    batch = batch_of(grid, time, ids="a", retry_s=20)

    with pytest.raises(ConnectionFailedError, match="The batch goes on"):
        list(batch.as_completed())
    assert sum(time.sleeps) <= 20


def test_progress_renews_the_budget_of_a_stream_that_breaks_often() -> None:
    """A long batch over a bad line survives as long as every stream brings something."""
    time = FakeTime()
    ids = [f"j{n}" for n in range(50)]
    breaks = [stream(part(job_id, at + 1), error=httpx.ReadError("reset")) for at, job_id in enumerate(ids)]
    batch = batch_of(Answers(*breaks, stream(end())), time, ids=ids, retry_s=1)

    assert len(list(batch.as_completed())) == 50


def test_an_unknown_batch_is_an_error_at_once() -> None:
    """A 404 of the stream is not retried."""
    batch = batch_of(Answers(problem("job-not-found", 404)), ids="a")

    with pytest.raises(JobNotFoundError):
        list(batch.as_completed())


def test_waiting_for_a_batch_ends_at_the_timeout_and_may_go_on_later() -> None:
    """What came before the timeout is kept; the next call reads on from there."""
    time = FakeTime()

    def slow(request: httpx.Request) -> httpx.Response:
        time.now += float(request.url.params["wait"])
        return stream(part("a", 1), end("more"))

    grid = Answers(slow, stream(part("b", 2), end()))
    batch = batch_of(grid, time, ids="ab")
    seen: list[str] = []
    with pytest.raises(WaitTimeoutError):
        seen.extend(job.job_id for job in batch.as_completed(timeout=10))

    assert [job.job_id for job in batch.as_completed()] == ["a", "b"]
    assert [float(request.url.params["wait"]) for request in grid.requests[1:]] == [10, 30]


def test_leaving_the_iteration_loses_nothing() -> None:
    """Parts that had arrived but were not taken are read again by the next iteration."""
    everything = part("a", 1, b"A") + part("b", 2, b"B") + part("c", 3, b"C") + end()

    def rest(request: httpx.Request) -> httpx.Response:
        assert request.url.params["cursor"] == "1"
        return stream(part("b", 2, b"B") + part("c", 3, b"C") + end())

    batch = batch_of(Answers(stream(everything), rest))
    for job in batch.as_completed():
        assert job.job_id == "a"
        break

    assert [job.job_id for job in batch.as_completed()] == ["a", "b", "c"]


def test_a_job_that_is_missing_from_the_stream_is_asked_for_alone() -> None:
    """A job that another batch had submitted first may be missing from this one's stream."""
    grid = Answers(stream(part("a", 1), end()), httpx.Response(200, content=b"B"))
    batch = batch_of(grid, ids="ab")

    assert [job.job_id for job in batch.as_completed()] == ["a", "b"]
    assert batch[1].result().data == b"B"
    assert grid.requests[-1].url.path == "/result/b"


def test_jobs_of_others_in_the_same_batch_are_skipped() -> None:
    """Posting to an existing batch does not give its earlier jobs."""
    batch = batch_of(Answers(stream(part("x", 1), part("a", 2), end())), ids="a")

    assert [job.job_id for job in batch.as_completed()] == ["a"]
