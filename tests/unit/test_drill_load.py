"""The load of a drill: its requests to the entries of a grid, and how it counts failures."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict

import httpx

from raygrid.client import AsyncClient, JobStatus, Result
from raygrid.drill.load import ClientLoad, result_digest
from raygrid.drill.recorder import EntryRequest, RequestRecorder, entry_of
from raygrid.drill.report import count_jobs
from raygrid.models import JobState

ONE, TWO, THREE = "http://one:8000", "http://two:8000", "http://three:8000"


def answering(*alive: str) -> httpx.MockTransport:
    """Entries of which only some answer."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host not in alive:
            raise httpx.ConnectError("nobody there", request=request)
        assert request.headers["host"] == f"{request.url.host}:8000"
        return httpx.Response(200, json={"slots": 1, "running": 0, "free": 1, "queued": 0})

    return httpx.MockTransport(answer)


async def test_requests_are_recorded_with_their_entry_and_whether_they_succeeded() -> None:
    """The client's retry goes to the next entry; a server error counts as a failure, too."""
    tries: list[EntryRequest] = []
    transport = RequestRecorder(answering("two"), tries.append)
    async with AsyncClient([ONE, TWO], transport=transport, retry_s=10) as client:
        assert (await client.capacity()).slots == 1
        assert (await client.capacity()).slots == 1
    assert [(each.entry, each.well) for each in tries] == [(ONE, False), (TWO, True), (TWO, True)]
    assert all(each.asked_at <= each.ended_at for each in tries)
    refusing = RequestRecorder(httpx.MockTransport(lambda _: httpx.Response(503)), tries.append)
    async with httpx.AsyncClient(base_url="http://one:80/path", transport=refusing) as http:
        await http.get("/")
    assert (tries[-1].entry, tries[-1].well) == (entry_of("http://one"), False)


async def test_clients_begin_at_different_entries() -> None:
    """The first request of each client goes to another entry, as long as there are enough."""
    load = ClientLoad([ONE, TWO, THREE], None, "drill", steady=0, transport=lambda: answering("one", "two", "three"))
    for client in load._clients:
        await client.capacity()
    assert [each.entry for each in load.tries] == [ONE, TWO, THREE]
    await load.close()


async def test_requests_that_fail_in_spite_of_retries_are_counted_and_not_acknowledged() -> None:
    """No grid answers: each job's submit is one error."""
    load = ClientLoad([ONE], None, "drill", steady=3, trickle_per_s=0, retry_s=0.0, transport=answering)
    load.start()
    await load.until(lambda: load.client_errors >= 3, 10)
    load.stop()
    assert await load.drained(10)
    await load.close()
    report = count_jobs("agent", load, {})
    assert report.client_errors == len(load.history.errors) >= 3
    assert (report.acknowledged, report.done, report.lost) == (0, 0, 0)
    assert "submit: no grid answers" in report.errors[0]


async def test_every_end_is_counted_once() -> None:
    """Done needs a result at the client; gone, unfinished and unread are lost; any other end is failed."""
    load = ClientLoad([ONE], None, "drill", steady=0, transport=answering)
    history = load.history
    final: dict[str, JobStatus] = {}
    ends = {
        "done": JobState.DONE,
        "again": JobState.DONE,
        "wrong": JobState.DONE,
        "unread": JobState.DONE,
        "hangs": JobState.RUNNING,
        "failed": JobState.FAILED,
        "gone": None,
    }
    for number, (job_id, state) in enumerate(ends.items()):
        history.submitted(job_id, "i", expected="right")
        history.acknowledged(job_id, number + 0.1)
        if state is not None:
            final[job_id] = JobStatus(job_id, state, attempts=2 if job_id == "again" else 1)
    history.submitted("refused", "i")
    for job_id, digest in (("done", "right"), ("again", "right"), ("wrong", "other")):
        history.result(job_id, digest, 10.0)
    report = count_jobs("agent", load, final)
    await load.close()
    figures = (report.acknowledged, report.done, report.lost, report.failed, report.repeated, report.wrong)
    assert figures == (7, 3, 3, 1, 1, 1)
    assert not report.is_well
    assert json.dumps(asdict(report))


def test_results_are_distinguished_by_the_pricers_answer() -> None:
    """Of a pricer without files the standard output counts."""
    assert result_digest(Result("a", b"one")) == result_digest(Result("b", b"one"))
    assert result_digest(Result("a", b"one")) != result_digest(Result("a", b"two"))


async def test_waiting_for_the_load_is_bounded() -> None:
    """A condition that does not come is an error in time."""
    load = ClientLoad([ONE], None, "drill", steady=0, transport=answering)
    began = asyncio.get_running_loop().time()
    assert not await load.until(lambda: False, 0.2)
    assert asyncio.get_running_loop().time() - began < 2
    await load.close()
