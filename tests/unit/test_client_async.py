"""The async client runs the same flows; tested here is what it does alone: driving them, streaming, closing."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import pickle
import queue
import re
import threading
from pathlib import Path

import httpx
import pytest

from raygrid.client import AsyncBatchJobs, AsyncClient, AsyncJob, BatchJobs, Client, Job
from raygrid.errors import JobFailedError, WaitTimeoutError
from tests.support.client_fakes import (
    URL,
    Answers,
    FakeTime,
    accepted,
    batch_accepted,
    end,
    form_of,
    part,
    problem,
    stream,
    zip_of,
)


def client_of(grid: Answers, time: FakeTime | None = None) -> AsyncClient:
    """An async client that gets these answers."""
    return AsyncClient(URL, transport=httpx.MockTransport(grid), retry=(time or FakeTime()).policy())


async def test_a_submit_is_retried_with_the_same_job_id_and_content(tmp_path: Path) -> None:
    """The file is read again from its beginning."""
    path = tmp_path / "t.csv"
    path.write_bytes(b"z" * 600_000)
    time = FakeTime()
    grid = Answers(httpx.ReadError("reset"), problem("busy", 429, retry_after="2"), accepted())
    async with client_of(grid, time) as client:
        job = await client.submit(path)

    first, second, third = (form_of(request) for request in grid.requests)
    assert first == second == third
    assert ("jobId", None, job.job_id.encode()) in first
    assert ("file", "t.csv", b"z" * 600_000) in first
    assert sum(time.sleeps) >= 2


async def test_a_result_is_waited_for_and_kept() -> None:
    """As in the blocking client."""
    grid = Answers(problem("not-finished", 404), httpx.Response(200, content=zip_of(stdout__txt="42")))
    async with client_of(grid) as client:
        job = client.job("j")
        assert (await job.result()).stdout == "42"
        assert (await job.result()).stdout == "42"
        assert await job.done()


def test_a_client_is_used_in_one_event_loop_after_another() -> None:
    """`asyncio.run` makes a loop each time: the connections of the one before have ended with it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRaygrid-Job-Id: j\r\n\r\n42")

    def serve(ready: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Task[None]]]) -> None:
        async def run() -> None:
            async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
                task = asyncio.current_task()
                assert task is not None
                ready.put((server.sockets[0].getsockname()[1], asyncio.get_running_loop(), task))
                with contextlib.suppress(asyncio.CancelledError):
                    await server.serve_forever()

        asyncio.run(run())

    async def ask() -> str:
        return (await client.job("j").result()).stdout

    ready: queue.Queue[tuple[int, asyncio.AbstractEventLoop, asyncio.Task[None]]] = queue.Queue()
    thread = threading.Thread(target=serve, args=(ready,))
    thread.start()
    port, loop, task = ready.get(timeout=10)
    try:
        client = AsyncClient(f"http://127.0.0.1:{port}", retry_s=0)
        assert [asyncio.run(ask()) for _ in range(3)] == ["42"] * 3
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_cannot_be_pickled_and_the_error_has_the_remedy(kind: type[Client] | type[AsyncClient]) -> None:
    """joblib, Dask and multiprocessing try it; results and errors can be pickled."""
    client = kind(URL, "k" * 32, plain_http=True)
    batch = (
        BatchJobs(client._connection, "b", ["j"])
        if isinstance(client, Client)
        else AsyncBatchJobs(client._connection, "b", ["j"])
    )
    for each in (client, client.job("j"), batch, next(iter(batch))):
        with pytest.raises(TypeError, match=r"Make a client there, raygrid.connect\('http://grid.test'\)") as refused:
            pickle.dumps(each)
        assert "k" * 32 not in str(refused.value)


async def test_errors_are_raised_where_they_are_awaited() -> None:
    """Failure and timeout are those of the blocking client."""
    async with client_of(Answers(problem("job-failed", 422), problem("not-finished", 404))) as client:
        with pytest.raises(JobFailedError):
            await client.job("j").result()
        with pytest.raises(WaitTimeoutError):
            await client.job("k").result(timeout=0)


async def test_a_map_streams_its_results_and_survives_a_broken_stream() -> None:
    """Results come in the order of the inputs, jobs as they end, and the stream is resumed at the cursor."""

    def rest(request: httpx.Request) -> httpx.Response:
        assert request.url.params["cursor"] == "1"
        return stream(part("a", 2, b"A"), part("c", 3, b"C"), end())

    grid = Answers(batch_accepted, stream(part("b", 1, b"B"), error=httpx.ReadError("reset")), rest)
    async with client_of(grid) as client:
        batch = await client.map({"a": b"1", "b": b"2", "c": b"3"})
        assert [job.job_id async for job in batch.as_completed()] == ["b", "a", "c"]
        assert [result.data async for result in batch.results()] == [b"A", b"B", b"C"]


async def test_a_job_that_is_missing_from_the_stream_is_asked_for_alone() -> None:
    """As in the blocking client."""
    grid = Answers(batch_accepted, stream(part("a", 1), end()), problem("job-failed", 422))
    async with client_of(grid) as client:
        batch = await client.map({"a": b"1", "b": b"2"})
        assert [job.job_id async for job in batch.as_completed()] == ["a", "b"]


async def test_a_download_is_streamed_to_its_file(tmp_path: Path) -> None:
    """The file appears only when it is complete."""
    async with client_of(Answers(httpx.Response(200, content=b"ZIP"))) as client:
        await client.job("j").download(tmp_path / "r.zip")
    assert (tmp_path / "r.zip").read_bytes() == b"ZIP"


async def test_lists_and_pages_are_read() -> None:
    """jobs() goes through the pages; data and the rest are lists."""
    grid = Answers(
        httpx.Response(200, json={"jobs": [{"jobId": "a", "state": "done"}], "next_cursor": "k"}),
        httpx.Response(200, json={"jobs": [{"jobId": "b", "state": "failed"}], "next_cursor": None}),
        httpx.Response(200, json={"slots": 4, "running": 1, "free": 3, "queued": 0}),
    )
    async with client_of(grid) as client:
        assert [status.job_id async for status in client.jobs(state="done")] == ["a", "b"]
        assert (await client.capacity()).free == 3
    assert grid.requests[1].url.params["cursor"] == "k"
    assert grid.requests[1].url.params["state"] == "done"


# Names that exist in one of the two clients only, and their counterparts.
COUNTERPARTS = {
    "AsyncClient": "Client",
    "AsyncJob": "Job",
    "AsyncBatchJobs": "BatchJobs",
    "AsyncIterator": "Iterator",
    "httpx.AsyncBaseTransport": "httpx.BaseTransport",
}


def blocking_words(annotation: object) -> str:
    """An annotation of the asynchronous client in the words of the blocking one."""
    words = re.sub(r"AsyncGenerator\[([\w.]+), None\]", r"AsyncIterator[\1]", str(annotation))
    return re.sub(r"[\w.]+", lambda word: COUNTERPARTS.get(word[0], word[0]), words)


@pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Job, AsyncJob), (BatchJobs, AsyncBatchJobs)])
def test_both_clients_have_the_same_methods_with_the_same_signatures(one: type, other: type) -> None:
    """Names, order, kinds, defaults and types of parameters and results agree, so that the two do not diverge."""

    def signatures(cls: type) -> dict[str, tuple[list[tuple[object, ...]], str]]:
        found = {name: f for name, f in inspect.getmembers(cls, inspect.isfunction) if not name.startswith("_")}
        if cls in (Client, AsyncClient):
            found["__init__"] = vars(cls)["__init__"]
        return {
            name: (
                [
                    (each.name, each.kind, each.default, blocking_words(each.annotation))
                    for each in inspect.signature(f).parameters.values()
                ],
                blocking_words(inspect.signature(f).return_annotation),
            )
            for name, f in found.items()
        }

    blocking, asynchronous = signatures(one), signatures(other)
    for sequence_only in ("count", "index"):
        blocking.pop(sequence_only, None)
    assert asynchronous == blocking
