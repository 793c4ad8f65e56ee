"""Results in the order of the inputs, and jobs in the order in which they end."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Protocol

import httpx
import pytest

import raygrid
from raygrid.client import Job, Result, completion, default
from raygrid.errors import JobFailedError, JobNotFoundError, WaitTimeoutError
from raygrid.models import JobState
from tests.support.client_fakes import (
    Answer,
    Answers,
    Cut,
    FakeTime,
    accepted,
    batch_accepted,
    end,
    part,
    problem,
    stream,
    stream_of,
)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """One fake clock for the client and for as_completed."""
    time = FakeTime()
    monkeypatch.setattr(completion, "monotonic", time.clock)
    return time


class UseGrid(Protocol):
    """Makes a grid with these answers the default one."""

    def __call__(self, *answers: Answer) -> Answers: ...


@pytest.fixture
def default_grid(monkeypatch: pytest.MonkeyPatch, time: FakeTime) -> UseGrid:
    """Make some answers the default grid of the module's functions."""

    def use(*answers: Answer) -> Answers:
        grid = Answers(*answers)
        monkeypatch.setattr(default, "_default", grid.client(time))
        return grid

    return use


def test_map_gives_results_in_the_order_of_the_inputs(default_grid: UseGrid) -> None:
    """The order does not depend on the order in which jobs end."""
    default_grid(batch_accepted, stream(part("c", 1, b"C"), part("a", 2, b"A"), part("b", 3, b"B"), end()))

    results = raygrid.map({"a": b"1", "b": b"2", "c": b"3"})

    assert [result.data for result in results] == [b"A", b"B", b"C"]


def test_map_submits_at_once_and_gives_each_result_as_soon_as_it_can(default_grid: UseGrid) -> None:
    """The first result is there before the later ones have ended."""
    chunks = [part("b", 1, b"B"), part("a", 2, b"A"), part("c", 3, b"C") + end()]
    body = Cut(*chunks)
    grid = default_grid(batch_accepted, stream_of(body))

    results = raygrid.map({"a": b"1", "b": b"2", "c": b"3"})
    assert len(grid.requests) == 1

    assert next(results).data == b"A"
    assert body.given == 2
    assert [result.data for result in results] == [b"B", b"C"]


FAILED = part("b", 1, state="failed", reason="timeout", message="took too long")


def test_map_raises_where_a_job_failed_or_gives_the_error_in_its_place(default_grid: UseGrid) -> None:
    """By default the failure ends the iteration at its place; with `return_errors` it is among the results."""
    body = FAILED + part("a", 2, b"A") + part("c", 3, b"C") + end()
    default_grid(batch_accepted, stream(body), batch_accepted, stream(body))
    inputs = {"a": b"1", "b": b"2", "c": b"3"}

    results = raygrid.map(inputs)
    assert next(results).data == b"A"
    with pytest.raises(JobFailedError, match="took too long"):
        next(results)

    a, b, c = raygrid.map(inputs, return_errors=True)
    assert isinstance(a, Result)
    assert isinstance(b, JobFailedError)
    assert isinstance(c, Result)
    assert (a.data, c.data) == (b"A", b"C")
    assert b.reason == "timeout"


def test_map_keeps_no_result_that_the_caller_has_dropped(default_grid: UseGrid) -> None:
    """A map over very many inputs does not fill the memory with their results."""
    default_grid(batch_accepted, stream(part("a", 1, b"A"), part("b", 2, b"B"), end()))
    results = raygrid.map({"a": b"1", "b": b"2"})
    first = weakref.ref(next(results))

    assert next(results).data == b"B"
    assert first() is None


def test_results_of_a_batch_may_be_read_twice(time: FakeTime) -> None:
    """The jobs keep their endings."""
    grid = Answers(batch_accepted, stream(part("b", 1, b"B"), part("a", 2, b"A"), end()))
    batch = grid.client(time).map({"a": b"1", "b": b"2"})

    for _ in range(2):
        assert [result.data for result in batch.results()] == [b"A", b"B"]


def test_as_completed_reads_the_stream_for_jobs_of_one_batch(default_grid: UseGrid) -> None:
    """Ten jobs, one request; the jobs that were not asked about are left out."""
    ids = [f"j{n}" for n in range(10)]
    grid = default_grid(
        batch_accepted, stream(*(part(job_id, at + 1) for at, job_id in enumerate(reversed(ids))), end())
    )
    batch = default.client().map(dict.fromkeys(ids, b"x"))

    ended = [job.job_id for job in raygrid.as_completed(batch[2:])]

    assert ended == ["j9", "j8", "j7", "j6", "j5", "j4", "j3", "j2"]
    assert len(grid.requests) == 2


def held(time: FakeTime, ends_at: Mapping[str, float]) -> Callable[[httpx.Request], httpx.Response]:
    """A grid that answers a wait when it is over or when the job ends, whichever comes first."""

    def answer(request: httpx.Request) -> httpx.Response:
        job_id = request.url.path.rpartition("/")[2]
        time.now = min(time.now + float(request.url.params["wait"]), max(time.now, ends_at[job_id]))
        if time.now < ends_at[job_id]:
            return problem("not-finished", 404)
        return httpx.Response(200, content=job_id.encode())

    return answer


def test_as_completed_gives_single_jobs_as_they_end(time: FakeTime) -> None:
    """Jobs without a batch are asked about in turns; a slow first one does not delay the others."""
    ends_at = {"slow": 1030.0, "fast": 1005.0, "middle": 1010.0}
    grid = Answers(*[held(time, ends_at)] * 200)
    client = grid.client(time)

    ended = []
    for job in raygrid.as_completed([client.job(job_id) for job_id in ends_at]):
        ended.append(job.job_id)
        assert ends_at[job.job_id] <= time.now <= ends_at[job.job_id] + 2
    assert ended == ["fast", "middle", "slow"]
    assert len(grid.requests) < 150


def test_as_completed_of_one_job_is_one_long_wait(time: FakeTime) -> None:
    """Nothing is polled if there is only one job."""
    grid = Answers(held(time, {"a": 1029.0}))

    assert [job.job_id for job in raygrid.as_completed([grid.client(time).job("a")])] == ["a"]
    assert len(grid.requests) == 1


def test_as_completed_takes_jobs_of_several_batches_and_of_none(time: FakeTime) -> None:
    """Batches and single jobs get their turns; each job comes once, soon after its end."""
    ends_at = {"a": 1003.0, "b": 1001.0, "c": 1009.0, "s": 1006.0}
    members = {"b-1": ["a", "c"], "b-2": ["b"]}
    single_job = held(time, ends_at)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return batch_accepted(request) if request.url.path == "/batches" else accepted()
        if request.url.path.startswith("/result/"):
            return single_job(request)
        ids = members[request.url.path.split("/")[2]]
        to_come = [ends_at[job_id] for job_id in ids if ends_at[job_id] > time.now]
        time.now = min([time.now + float(request.url.params["wait"]), *to_come])
        ended = [part(job_id, at + 1) for at, job_id in enumerate(ids) if time.now >= ends_at[job_id]]
        new = ended[int(request.url.params["cursor"]) :]
        return stream(*new, end("complete" if len(ended) == len(ids) else "more"))

    client = Answers(*[answer] * 200).client(time)
    first = client.map({"a": b"1", "c": b"3"}, batch_id="b-1")
    second = client.map({"b": b"2"}, batch_id="b-2")
    single = client.submit(b"x", job_id="s")

    ended = []
    for job in raygrid.as_completed([*first, *second, single, single]):
        ended.append(job.job_id)
        assert ends_at[job.job_id] <= time.now <= ends_at[job.job_id] + 2
    assert ended == ["b", "a", "s", "c"]


def test_as_completed_ends_at_its_timeout(time: FakeTime) -> None:
    """The jobs that ended in time come first, then the error counts those that did not."""
    grid = Answers(*[held(time, {"a": 1001.0, "b": 9999.0})] * 200)
    client = grid.client(time)
    ended: list[Job] = []

    with pytest.raises(WaitTimeoutError, match="1 jobs have not ended within 10 s"):
        ended.extend(raygrid.as_completed([client.job("a"), client.job("b")], timeout=10))
    assert [job.job_id for job in ended] == ["a"]
    assert time.now <= 1012


def test_as_completed_gives_failed_jobs_and_raises_for_unknown_ones(time: FakeTime) -> None:
    """A failure is an end; a job that the grid does not know has none."""
    failed = Answers(problem("job-failed", 422)).client(time).job("f")
    assert list(raygrid.as_completed([failed])) == [failed]

    unknown = Answers(problem("job-not-found", 404)).client(time).job("u")
    with pytest.raises(JobNotFoundError):
        list(raygrid.as_completed([unknown]))


def test_attaching_to_a_batch_finds_its_jobs_page_by_page(time: FakeTime) -> None:
    """batch() asks whether the batch exists, then for its jobs, until there is no next cursor."""

    def page(ids: str, cursor: str | None) -> httpx.Response:
        return httpx.Response(200, json={"jobs": [{"jobId": i, "state": "queued"} for i in ids], "next_cursor": cursor})

    counts = {"batchId": "b", "total": 3, "finished": False, "counts": {"queued": 3}}
    grid = Answers(
        httpx.Response(200, json=counts), page("ab", "k1"), page("c", None), stream(part("b", 1), end("more"))
    )
    batch = grid.client(time).batch("b")

    assert [job.job_id for job in batch] == ["a", "b", "c"]
    assert [request.url.params.get("cursor") for request in grid.requests[1:3]] == [None, "k1"]
    assert {request.url.params["batch"] for request in grid.requests[1:3]} == {"b"}
    assert next(batch.as_completed()).job_id == "b"


def test_status_and_cancel_of_a_batch_ask_the_grid(time: FakeTime) -> None:
    """Counts come by state; cancelling gives the number of jobs that it reaches."""
    counts = {"batchId": "b", "total": 3, "finished": False, "counts": {"queued": 2, "done": 1}}
    grid = Answers(batch_accepted, httpx.Response(200, json=counts), httpx.Response(202, json={"cancelling": 2}))
    batch = grid.client(time).map([b"x"], batch_id="b")

    assert batch.status().counts[JobState.QUEUED] == 2
    assert batch.cancel() == 2
    assert grid.requests[-1].method == "DELETE"
    assert grid.requests[-1].url.path == "/batches/b"


def test_a_released_job_asks_again(time: FakeTime) -> None:
    """release() frees the memory; the job stays usable."""
    grid = Answers(httpx.Response(200, content=b"1"), httpx.Response(200, content=b"1"))
    job = grid.client(time).job("a")
    job.result()
    job.release()

    assert job.result().data == b"1"
    assert len(grid.requests) == 2
