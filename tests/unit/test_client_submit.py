"""The requests of a submit and of a map."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from pathlib import Path

import httpx
import pytest

from raygrid.client.form import MultipartForm
from raygrid.client.posting import split_requests
from raygrid.client.upload import InputUpload
from raygrid.errors import (
    BusyError,
    ConnectionFailedError,
    InvalidRequestError,
    TooLargeError,
    UnknownPricerError,
)
from tests.support.client_fakes import Answers, FakeTime, accepted, batch_accepted, form_of, problem


def fields(request: httpx.Request) -> list[tuple[str, str]]:
    """Form fields without files."""
    return [(name, content.decode()) for name, filename, content in form_of(request) if filename is None]


def files(request: httpx.Request) -> list[tuple[str, str, bytes]]:
    """File parts."""
    return [(name, filename, content) for name, filename, content in form_of(request) if filename is not None]


def test_all_options_travel_in_the_form_and_defaults_do_not() -> None:
    """Each option is a field of its own name, repeated for lists."""
    grid = Answers(accepted(), accepted())
    client = grid.client()
    client.submit(
        b"x",
        job_id="j-1",
        pricer="bs",
        args=["-v", "2"],
        priority=5,
        affinity="eur",
        site="ldn",
        timeout_s=1.5,
        data=["m"],
    )
    client.submit(b"x", job_id="j-2")

    assert sorted(fields(grid.requests[0])) == [
        ("affinity", "eur"),
        ("args", "-v"),
        ("args", "2"),
        ("data", "m"),
        ("jobId", "j-1"),
        ("pricer", "bs"),
        ("priority", "5"),
        ("site", "ldn"),
        ("timeout_s", "1.5"),
    ]
    assert fields(grid.requests[1]) == [("jobId", "j-2")]


def test_a_job_without_an_id_gets_a_uuid_of_version_7() -> None:
    """The client makes the id before it sends anything."""
    job = Answers(accepted()).client().submit(b"x")

    assert uuid.UUID(job.job_id).version == 7


@pytest.mark.parametrize("bad", ["", "a/b", "..", "x" * 129, "a b", "a\n"])
def test_an_id_that_the_grid_would_refuse_is_not_sent(bad: str) -> None:
    """Bad ids fail at once, before they get into a path."""
    grid = Answers()
    with pytest.raises(InvalidRequestError, match="is not a job id"):
        grid.client().submit(b"x", job_id=bad)
    with pytest.raises(InvalidRequestError, match="is not a job id"):
        grid.client().job(bad)


def test_one_string_in_place_of_a_list_is_refused() -> None:
    """args="ab" would otherwise become the arguments a and b."""
    with pytest.raises(TypeError, match=r"args=\['ab'\]"):
        Answers().client().submit(b"x", args="ab")
    with pytest.raises(TypeError, match="list of inputs"):
        Answers().client().map("trades.csv")


def test_a_missing_file_and_a_directory_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    """A str is a path, always."""
    with pytest.raises(FileNotFoundError):
        Answers().client().submit(str(tmp_path / "none.csv"))
    with pytest.raises(InvalidRequestError, match="is a directory"):
        Answers().client().submit(tmp_path)


def test_the_body_has_the_length_that_it_announces(tmp_path: Path) -> None:
    """Content-Length is exact for bytes, paths and odd file names, and small pieces share a chunk."""
    path = tmp_path / 'a "quoted" name.csv'
    path.write_bytes(b"y" * 300_000)
    form = MultipartForm(
        [("pricer", "ü")], [("a", InputUpload.of(b"x" * 10)), ("b", InputUpload.of(path)), ("c", InputUpload.of(b""))]
    )

    chunks = list(form.chunks())

    assert sum(map(len, chunks)) == form.length
    assert len(chunks) <= 4
    assert b"filename*=UTF-8''a%20%22quoted%22%20name.csv" in b"".join(chunks)
    assert b"".join(form.chunks()) == b"".join(chunks)


def test_a_map_is_one_request_with_a_part_per_job() -> None:
    """The file parts are named after the jobs, in the order of the inputs."""
    grid = Answers(batch_accepted)
    batch = grid.client().map({"t-1": b"one", "t-2": b"two"}, pricer="bs")

    assert files(grid.requests[0]) == [("t-1", "input", b"one"), ("t-2", "input", b"two")]
    assert fields(grid.requests[0]) == [("batchId", batch.batch_id), ("pricer", "bs")]
    assert [job.job_id for job in batch] == ["t-1", "t-2"]


def test_a_large_map_is_split_by_jobs_under_one_batch_id() -> None:
    """The first request is short, so that the grid begins early; none has more than 2,000; all are for one batch."""
    grid = Answers(*[batch_accepted] * 5)
    batch = grid.client().map([b"x"] * 5_000)

    assert [len(files(request)) for request in grid.requests] == [128, 512, 2_000, 2_000, 360]
    assert {dict(fields(request))["batchId"] for request in grid.requests} == {batch.batch_id}
    sent = [name for request in grid.requests for name, _, _ in files(request)]
    assert sent == [job.job_id for job in batch]
    assert len(set(sent)) == 5_000


def test_a_map_is_split_by_bytes_and_a_huge_input_travels_alone() -> None:
    """No request holds more than the limit unless one input alone does."""
    sizes = [3, 3, 3, 20, 1, 10, 1]
    jobs = [(str(at), InputUpload.of(b"x" * size)) for at, size in enumerate(sizes)]

    chunks = [[upload.length for _, upload in chunk] for chunk in split_requests(jobs, max_jobs=100, max_bytes=10)]

    assert chunks == [[3, 3, 3], [20], [1], [10], [1]]


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"], ["a", "a"], ["a", "b/c"]])
def test_ids_that_do_not_fit_the_inputs_are_refused(ids: list[str]) -> None:
    """Too few, too many, twice the same, or not an id."""
    with pytest.raises(InvalidRequestError):
        Answers().client().map([b"1", b"2"], job_ids=ids)


def test_an_empty_map_sends_nothing() -> None:
    """No inputs, no request, no results."""
    batch = Answers().client().map([])

    assert list(batch.as_completed()) == []
    assert list(batch.results()) == []


def refusing(refused: Iterable[tuple[str, str]], status: int = 202) -> httpx.Response:
    """An answer to a batch that refuses some of its jobs."""
    entries = [{"jobId": job_id, "problem": json.loads(problem(word, 400).content)} for job_id, word in refused]
    return httpx.Response(status, json={"batchId": "b", "refused": entries})


@pytest.mark.parametrize("status", [202, 409])
def test_a_refused_job_raises_its_own_error_and_the_others_go_on(status: int) -> None:
    """The error belongs to the job, whether some of the batch (202) or all of it (409) was refused."""
    batch = Answers(refusing([("a", "unknown-pricer")], status)).client().map({"a": b"1", "b": b"2"})

    with pytest.raises(UnknownPricerError, match="said unknown-pricer"):
        batch[0].result()
    assert list(batch.refused) == ["a"]
    assert batch[1].ending is None


def test_jobs_that_did_not_fit_into_the_queue_are_posted_again() -> None:
    """Only the busy ones are sent again, to the same batch, after a pause."""
    time = FakeTime()
    grid = Answers(refusing([("b", "busy"), ("c", "conflict")]), batch_accepted)
    batch = grid.client(time).map({"a": b"1", "b": b"2", "c": b"3"})

    assert [name for name, _, _ in files(grid.requests[1])] == ["b"]
    assert dict(fields(grid.requests[1]))["batchId"] == batch.batch_id
    assert list(batch.refused) == ["c"]
    assert time.sleeps == [pytest.approx(1.2)]


def test_jobs_that_never_fit_are_refused_once_the_retries_are_used_up() -> None:
    """The others are on the grid, so the map does not raise; the busy job does."""
    grid = Answers(*[refusing([("b", "busy")])] * 100)
    batch = grid.client(retry_s=10).map({"a": b"1", "b": b"2"})

    assert list(batch.refused) == ["b"]
    with pytest.raises(BusyError):
        batch[1].result()
    assert len(grid.requests) < 100


def test_a_batch_that_is_refused_as_a_whole_raises() -> None:
    """A 413 for the request is no error of single jobs."""
    with pytest.raises(TooLargeError):
        Answers(problem("too-large", 413)).client().map([b"x"])


def test_an_interrupted_map_has_notes_on_how_to_go_on() -> None:
    """The error's notes have the batch and the number of jobs that were posted."""
    grid = Answers(batch_accepted, *[httpx.ReadError("reset")] * 100)
    with pytest.raises(ConnectionFailedError) as caught:
        grid.client().map([b"x"] * 2_001, batch_id="b-7")

    assert "128 of 2001 jobs were posted to batch b-7" in caught.value.__notes__[0]


def test_shared_data_is_put_raw_under_its_name(tmp_path: Path) -> None:
    """The body is the file itself, with its length."""
    path = tmp_path / "market.csv"
    path.write_bytes(b"curves")
    grid = Answers(httpx.Response(201, json={"name": "eod", "digest": "d", "size": 6}))

    stored = grid.client().put_data("eod", path)

    request = grid.requests[0]
    assert (request.method, request.url.path, request.content) == ("PUT", "/data/eod", b"curves")
    assert request.headers["Content-Length"] == "6"
    assert (stored.name, stored.size) == ("eod", 6)
