"""Batches over HTTP: submitting, appending, refusing, cancelling, and the stream of their results."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from raygrid.client import AsyncClient, Client
from raygrid.errors import JobFailedError, ResultExpiredError
from raygrid.models import JobState
from tests.support.http import manifest, parts_of, unzip, word
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(tmp_path_factory.mktemp("grid"), slots=3) as running:
        yield running


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file that jobs wait for; it is made in the end for all that still wait."""
    path = tmp_path / "gate"
    yield path
    path.touch()


def waiting_for(gate: Path, then: str = "") -> str:
    return f"while [ ! -e {gate} ]; do sleep 0.02; done; {then}"


async def post(grid: SmallGrid, batch_id: str | None, scripts: dict[str, str], **options: Any) -> httpx.Response:
    """Submit a batch of shell scripts by jobId."""
    files = [(job_id, (f"{job_id}.sh", script.encode())) for job_id, script in scripts.items()]
    data = {"pricer": "shell", **options} | ({"batchId": batch_id} if batch_id else {})
    return await grid.http.post("/batches", files=files, data=data)


async def results(grid: SmallGrid, batch_id: str, cursor: int = 0, wait: float = 30) -> httpx.Response:
    answer = await grid.http.get(f"/batches/{batch_id}/results", params={"cursor": cursor, "wait": wait})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("multipart/mixed; boundary=")
    return answer


async def test_a_batch_is_taken_and_finishes(grid: SmallGrid) -> None:
    """The answer counts what was taken and has the address of the status; the status counts states."""
    answer = await post(grid, "b-1", {"b-1-good": "echo 1", "b-1-bad": "exit 3"})
    assert answer.status_code == 202
    assert answer.headers["location"] == "/batches/b-1"
    assert answer.json() == {
        "batchId": "b-1",
        "total": 2,
        "created": 2,
        "attached": 0,
        "reused": 0,
        "refused": [],
        "status_url": "/batches/b-1",
        "results_url": "/batches/b-1/results",
        "events_url": "/events?batch=b-1",
    }
    await results(grid, "b-1")
    status = (await grid.http.get("/batches/b-1")).json()
    assert status.pop("submitted_at").endswith("Z")
    assert status == {
        "batchId": "b-1",
        "total": 2,
        "finished": True,
        "counts": {"queued": 0, "running": 0, "done": 1, "failed": 1, "cancelled": 0},
        "reused": 0,
        "owner": "local",
    }


async def test_a_batch_without_a_name_gets_one(grid: SmallGrid) -> None:
    """Two batches without batchId are two batches."""
    first, second = [(await post(grid, None, {f"unnamed-{i}": "true"})).json()["batchId"] for i in range(2)]
    assert first != second
    assert (await grid.http.get(f"/batches/{first}")).json()["total"] == 1


async def test_options_of_the_form_are_defaults_and_jobs_override_them(grid: SmallGrid) -> None:
    """What `jobs` has for a job wins over the form; other jobs keep the form's options."""
    overrides: dict[str, Any] = {
        "own": {"args": ["x", "y z"], "priority": 3},
        "other-pricer": {"pricer": "shell", "timeout_s": 20},
    }
    answer = await grid.http.post(
        "/batches",
        files=[("plain", b"1"), ("own", b"2"), ("other-pricer", ("s.sh", b"echo shell"))],
        data={
            "batchId": "b-over",
            "pricer": "args",
            "args": ["a", "b"],
            "priority": "1",
            "jobs": json.dumps(overrides),
        },
    )
    # The form's args are no use to the other pricer, which takes none: that is an error, not ignored.
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert "other-pricer" in answer.json()["detail"]
    overrides["other-pricer"]["args"] = []
    answer = await grid.http.post(
        "/batches",
        files=[("plain", b"1"), ("own", b"2"), ("other-pricer", ("s.sh", b"echo shell"))],
        data={
            "batchId": "b-over",
            "pricer": "args",
            "args": ["a", "b"],
            "priority": "1",
            "jobs": json.dumps(overrides),
        },
    )
    assert answer.status_code == 202
    parts, complete = parts_of(await results(grid, "b-over"))
    assert complete
    printed = {part.job_id: unzip(part.body)["stdout.txt"] for part in parts}
    assert printed == {"plain": b"a\nb\n", "own": b"x\ny z\n", "other-pricer": b"shell\n"}
    assert [(await grid.status(job_id))["priority"] for job_id in ("plain", "own")] == [1, 3]


async def test_a_batch_can_be_appended_to(grid: SmallGrid) -> None:
    """Posting to the same batchId adds jobs; those that were there are attached, and run no second time."""
    runs = grid.directory / "append-runs"
    first = {"app-1": f"echo 1 >> {runs}", "app-2": f"echo 2 >> {runs}"}
    await post(grid, "b-app", first)
    answer = (await post(grid, "b-app", {**first, "app-3": f"echo 3 >> {runs}"})).json()
    assert (answer["total"], answer["created"], answer["attached"]) == (3, 1, 2)
    parts, complete = parts_of(await results(grid, "b-app"))
    assert complete
    assert sorted(part.job_id for part in parts) == ["app-1", "app-2", "app-3"]
    assert sorted(runs.read_text().split()) == ["1", "2", "3"]


async def test_a_job_from_outside_can_join_a_batch(grid: SmallGrid) -> None:
    """A job that was submitted by itself and comes again in a batch is in that batch's results."""
    await grid.submit("joins", "echo joined")
    assert (await post(grid, "b-join", {"joins": "echo joined"})).json()["attached"] == 1
    parts, complete = parts_of(await results(grid, "b-join"))
    assert complete
    assert [(part.job_id, unzip(part.body)["stdout.txt"]) for part in parts] == [("joins", b"joined\n")]


async def test_a_conflict_refuses_one_job_of_a_batch(grid: SmallGrid) -> None:
    """A jobId that is taken with another input is refused by name; the rest of the batch is taken."""
    await grid.submit("clash", "echo original")
    answer = await post(grid, "b-clash", {"clash": "echo other", "fine": "echo fine"})
    assert answer.status_code == 202
    taken = answer.json()
    assert (taken["total"], taken["created"]) == (1, 1)
    [refused] = taken["refused"]
    assert refused["jobId"] == "clash"
    assert refused["problem"]["type"] == "urn:raygrid:problem:conflict"
    assert refused["problem"]["status"] == 409
    parts, _ = parts_of(await results(grid, "b-clash"))
    assert [part.job_id for part in parts] == ["fine"]
    assert unzip(await grid.submit("clash", "echo original"))["stdout.txt"] == b"original\n"


async def test_a_batch_of_conflicts_is_a_conflict(grid: SmallGrid) -> None:
    """If every job is refused, so is the batch."""
    await grid.submit("clash-all", "echo original")
    answer = await post(grid, "b-none", {"clash-all": "echo other"})
    assert (answer.status_code, word(answer)) == (409, "conflict")


async def test_an_unknown_batch_is_not_found(grid: SmallGrid) -> None:
    """Status, results, events and cancelling of an unknown batch are 404."""
    for method, path in (
        ("GET", "/batches/nobody"),
        ("GET", "/batches/nobody/results"),
        ("DELETE", "/batches/nobody"),
        ("GET", "/events?batch=nobody"),
    ):
        answer = await grid.http.request(method, path)
        assert (answer.status_code, word(answer)) == (404, "job-not-found")


async def test_cancelling_a_batch_cancels_unfinished_jobs(grid: SmallGrid, gate: Path) -> None:
    """Running and queued jobs are cancelled and counted; done ones stay done."""
    await post(grid, "b-cancel", {"bc-done": "echo done"})
    await grid.until_state("bc-done", "done")
    await post(grid, "b-cancel", {f"bc-{number}": waiting_for(gate) for number in range(6)})
    await grid.until_state("bc-0", "running")
    answer = await grid.http.delete("/batches/b-cancel")
    assert (answer.status_code, answer.json()) == (202, {"batchId": "b-cancel", "cancelling": 6})
    parts, complete = parts_of(await results(grid, "b-cancel", wait=10))
    assert complete
    states = {part.job_id: part.state for part in parts}
    assert states.pop("bc-done") is JobState.DONE
    assert set(states.values()) == {JobState.CANCELLED}
    assert len(states) == 6


# --- the results stream ---------------------------------------------------------------------------------------------


async def test_results_come_in_the_order_in_which_jobs_end(grid: SmallGrid, tmp_path: Path) -> None:
    """The stream gives each job once, as it ends, whatever the order of the submit, with a cursor that rises."""
    names = ["third", "first", "second"]
    gates = {name: tmp_path / name for name in names}
    await post(grid, "b-order", {f"o-{name}": waiting_for(gates[name], f"echo {name}") for name in names})
    for name in ("first", "second", "third"):
        gates[name].touch()
        await grid.until_state(f"o-{name}", "done")
    parts, complete = parts_of(await results(grid, "b-order"))
    assert complete
    assert [part.job_id for part in parts] == ["o-first", "o-second", "o-third"]
    assert [unzip(part.body)["stdout.txt"] for part in parts] == [b"first\n", b"second\n", b"third\n"]
    cursors = [part.cursor for part in parts]
    assert cursors == sorted(set(cursors))


async def test_a_part_is_sent_while_others_still_run(grid: SmallGrid, gate: Path) -> None:
    """A result can be read from the open stream before the batch is finished."""
    await post(grid, "b-live", {"live-quick": "echo quick", "live-slow": waiting_for(gate, "echo slow")})
    async with grid.http.stream("GET", "/batches/b-live/results", params={"wait": 60}) as answer:
        received = b""
        async for chunk in answer.aiter_raw():
            received += chunk
            if b"live-quick" in received and not gate.exists():
                assert b"live-slow" not in received
                gate.touch()
    assert b"live-slow" in received
    assert b"Raygrid-End: complete" in received


async def test_a_stream_whose_time_is_over_ends_with_more(grid: SmallGrid, gate: Path) -> None:
    """When the wait runs out first, the last part has `more` and the cursor to go on from."""
    await post(grid, "b-more", {"more-quick": "echo quick", "more-slow": waiting_for(gate, "echo slow")})
    await grid.until_state("more-quick", "done")
    first = await results(grid, "b-more", wait=0)
    parts, complete = parts_of(first)
    assert not complete
    assert [part.job_id for part in parts] == ["more-quick"]
    assert f'{{"complete": false, "cursor": {parts[-1].cursor}}}'.encode() in first.content
    gate.touch()
    parts, complete = parts_of(await results(grid, "b-more", cursor=parts[-1].cursor))
    assert complete
    assert [part.job_id for part in parts] == ["more-slow"]


async def test_a_stream_resumes_after_any_part(grid: SmallGrid) -> None:
    """From every cursor the stream goes on with the part after it, and none is given twice."""
    await post(grid, "b-resume", {f"r-{number}": f"echo {number}" for number in range(5)})
    parts, _ = parts_of(await results(grid, "b-resume"))
    assert len(parts) == 5
    for index, part in enumerate(parts):
        rest, complete = parts_of(await results(grid, "b-resume", cursor=part.cursor))
        assert complete
        assert rest == parts[index + 1 :]


async def test_failed_jobs_are_in_the_stream_with_their_zip(grid: SmallGrid) -> None:
    """A failed job's part has reason, exit code and message, non-ASCII text included, and carries its ZIP."""
    await post(grid, "b-fail", {"f-exit": "echo kept; exit 5", "f-time": "sleep 60"}, timeout_s="1.5")
    parts, complete = parts_of(await results(grid, "b-fail"))
    assert complete
    by_id = {part.job_id: part for part in parts}
    failed = by_id["f-exit"]
    assert (failed.state, failed.reason, failed.exit_code) == (JobState.FAILED, "exit_code", 5)
    assert failed.message == "the pricer exited with code 5"
    assert unzip(failed.body)["stdout.txt"] == b"kept\n"
    late = by_id["f-time"]
    assert (late.state, late.reason, late.exit_code) == (JobState.FAILED, "timeout", None)
    assert late.message == "killed at its wall-time limit of 1.5 s"


async def test_cancelled_jobs_are_in_the_stream_without_a_body(grid: SmallGrid, gate: Path) -> None:
    """A job that was cancelled while it ran has a part, so that its end is known."""
    await post(grid, "b-gone", {"gone-1": waiting_for(gate)})
    await grid.until_state("gone-1", "running")
    await grid.http.delete("/jobs/gone-1")
    [part], complete = parts_of(await results(grid, "b-gone"))
    assert complete
    assert (part.job_id, part.state, part.reason) == ("gone-1", JobState.CANCELLED, "cancelled")


async def test_a_large_result_is_streamed_among_small_ones(grid: SmallGrid) -> None:
    """A result of many megabytes comes whole, and so do the small ones beside it."""
    data = os.urandom(9 * 1024**2)
    files = [("big", data), ("small-1", b"one"), ("small-2", b"two")]
    await grid.http.post("/batches", files=files, data={"batchId": "b-big", "pricer": "copy"})
    parts, complete = parts_of(await results(grid, "b-big"))
    assert complete
    assert {part.job_id: unzip(part.body)["copy"] for part in parts} == dict(files)


async def test_hundreds_of_results_come_over_several_pages(grid: SmallGrid) -> None:
    """More jobs than fit a page of the store all come, each once, its own result."""
    scripts = {f"many-{number}": f"echo {number}" for number in range(300)}
    await post(grid, "b-many", scripts)
    parts, complete = parts_of(await results(grid, "b-many", wait=60))
    assert complete
    printed = {part.job_id: unzip(part.body)["stdout.txt"] for part in parts}
    assert len(parts) == 300
    assert printed == {f"many-{number}": f"{number}\n".encode() for number in range(300)}
    assert all(manifest(part.body)["jobId"] == part.job_id for part in parts)


async def test_a_result_that_is_gone_has_an_empty_part(grid: SmallGrid) -> None:
    """A purged job still has its part, without a body; the stream does not break over it."""
    await post(grid, "b-purged", {"purged-1": "echo x", "purged-2": "echo y"})
    await results(grid, "b-purged")
    ended_at = (await grid.store.get(["purged-2"]))["purged-2"].ended_at
    assert ended_at is not None
    await grid.store.purge(ended_at.replace(year=2100))
    parts, complete = parts_of(await results(grid, "b-purged"))
    assert complete
    assert [(part.job_id in ("purged-1", "purged-2"), part.body) for part in parts] == [(True, b""), (True, b"")]
    assert {(part.state, part.problem) for part in parts} == {(JobState.DONE, "urn:raygrid:problem:result-expired")}
    assert all("when its retention ended" in (part.problem_detail or "") for part in parts)


async def test_a_result_missing_from_the_blob_store_does_not_end_the_stream(grid: SmallGrid) -> None:
    """Bytes that are lost from the blob store and the caches cost their own part only, which has the problem."""
    await post(grid, "b-lost", {"lost-1": "head -c 5000000 /dev/urandom > big", "lost-2": "echo kept"})
    await grid.until_state("lost-1", "done")
    await grid.until_state("lost-2", "done")
    lost = (await grid.store.get(["lost-1"]))["lost-1"].result
    assert lost is not None
    await grid.blobs.delete([lost.key])
    parts, complete = parts_of(await results(grid, "b-lost"))
    assert complete
    bodies = {part.job_id: part.body for part in parts}
    assert bodies["lost-1"] == b""
    assert unzip(bodies["lost-2"])["stdout.txt"] == b"kept\n"
    gone = {part.job_id: (part.problem, part.problem_detail) for part in parts if part.problem}
    detail = "the result of job lost-1 is gone from the blob store; submit the input under a new jobId to run it again"
    assert gone == {"lost-1": ("urn:raygrid:problem:result-expired", detail)}


async def test_a_large_result_missing_from_the_blob_store_is_reported(grid: SmallGrid) -> None:
    """A result that would be streamed by itself is reported as gone like any other."""
    await post(grid, "b-large", {"large-1": "head -c 5000000 /dev/urandom > big"})
    await grid.until_state("large-1", "done")
    lost = (await grid.store.get(["large-1"]))["large-1"].result
    assert lost is not None
    await grid.blobs.delete([lost.key])
    [part], complete = parts_of(await results(grid, "b-large"))
    assert complete
    assert (part.state, part.body, part.problem) == (JobState.DONE, b"", "urn:raygrid:problem:result-expired")


async def test_small_results_missing_from_the_blob_store_are_reported(tmp_path: Path) -> None:
    """A pack that is lost is a problem in the part of each of its jobs; the client raises ResultExpiredError."""
    async with SmallGrid(tmp_path, node={"cache": 0}) as grid:
        await post(grid, "b-small", {"small-1": "echo x", "small-2": "exit 3"})
        await grid.until_state("small-1", "done")
        await grid.until_state("small-2", "failed")
        for job in (await grid.store.get(["small-1", "small-2"])).values():
            assert job.result is not None
            await grid.blobs.delete([job.result.key])
        parts, _ = parts_of(await results(grid, "b-small"))
        assert {part.job_id: (part.state, part.body, part.problem) for part in parts} == {
            "small-1": (JobState.DONE, b"", "urn:raygrid:problem:result-expired"),
            "small-2": (JobState.FAILED, b"", "urn:raygrid:problem:result-expired"),
        }
        client = Client(grid.url)
        jobs = await asyncio.to_thread(lambda: list(client.batch("b-small").as_completed(timeout=20)))
        errors = {job.job_id: job.ending.error for job in jobs if job.ending is not None}
        assert isinstance(errors["small-1"], ResultExpiredError)
        assert "gone from the blob store" in str(errors["small-1"])
        assert isinstance(errors["small-2"], JobFailedError)
        await asyncio.to_thread(client.close)


async def test_two_readers_of_a_stream_get_the_same(grid: SmallGrid) -> None:
    """Any number of clients may read a batch, each at its own pace."""
    await post(grid, "b-two", {f"two-{number}": "echo x" for number in range(10)})
    first, second = await asyncio.gather(results(grid, "b-two"), results(grid, "b-two"))
    assert sorted(part.cursor for part in parts_of(first)[0]) == sorted(part.cursor for part in parts_of(second)[0])
    assert len(parts_of(first)[0]) == 10


ORDER = ["t10", "t9", "t2", "t1"]


async def test_a_batch_attached_again_has_its_jobs_in_the_order_of_submission(grid: SmallGrid) -> None:
    """Over HTTP and in both clients, page by page, whatever the ids and whichever job ends first."""
    first = {name: f"sleep {0.01 * len(ORDER)}; echo {name}" for name in ORDER}
    assert (await post(grid, "in-order", first)).status_code == 202
    assert (await post(grid, "in-order", {"t5": "echo t5", "t9": first["t9"], "a": "echo a"})).status_code == 202
    expected = [*ORDER, "t5", "a"]

    listed: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await grid.http.get("/jobs", params={"batch": "in-order", "limit": 2, **cursor})).json()
        listed += [job["jobId"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert listed == expected

    def blocking() -> tuple[list[str], list[str]]:
        with Client(grid.url) as client:
            jobs = client.batch("in-order")
            return [job.job_id for job in jobs], [result.stdout.strip() for result in jobs.results(30)]

    assert await asyncio.to_thread(blocking) == (expected, expected)
    async with AsyncClient(grid.url) as client:
        jobs = await client.batch("in-order")
        assert [job.job_id for job in jobs] == expected
        assert [result.stdout.strip() async for result in jobs.results(30)] == expected


async def test_a_cursor_of_another_batch_is_refused(grid: SmallGrid) -> None:
    """It has no place in this batch; the message names it."""
    await post(grid, "cursor-1", {"cursor-1-a": "echo 1"})
    await post(grid, "cursor-2", {"cursor-2-a": "echo 1"})
    answer = await grid.http.get("/jobs", params={"batch": "cursor-1", "cursor": "cursor-2-a"})
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert "'cursor-2-a' is not a job of batch cursor-1" in answer.json()["detail"]


async def test_a_job_names_its_batches(grid: SmallGrid) -> None:
    """Its status and the list of jobs do; a job that was submitted alone names none."""
    script = {"of-two": "echo 1"}
    await post(grid, "names-2", script)
    await post(grid, "names-1", script)
    assert (await grid.status("of-two"))["batches"] == ["names-2", "names-1"]
    await grid.submit("of-none", "echo 1")
    assert (await grid.status("of-none"))["batches"] == []
    [job] = (await grid.http.get("/jobs", params={"batch": "names-1"})).json()["jobs"]
    assert job["batches"] == ["names-2", "names-1"]
    for which in ({"batch": "names-1"}, {"job": "of-two"}):
        events = (await grid.http.get("/events", params=which)).text
        assert '"batches":["names-2","names-1"]' in events


async def test_batches_are_listed_newest_first_page_by_page(grid: SmallGrid) -> None:
    """Each with its counts, over HTTP and in both clients; a cursor that is no batch is refused."""
    for number in range(3):
        await post(grid, f"listed-{number}", {f"listed-{number}-{n}": "echo 1" for n in range(number + 1)})
    page = (await grid.http.get("/batches", params={"limit": 2})).json()
    assert [(each["batchId"], each["total"]) for each in page["batches"]] == [("listed-2", 3), ("listed-1", 2)]
    assert page["next_cursor"] == "listed-1"
    rest = (await grid.http.get("/batches", params={"cursor": "listed-1", "limit": 1})).json()
    assert [each["batchId"] for each in rest["batches"]] == ["listed-0"]
    assert sum(rest["batches"][0]["counts"].values()) == 1
    refused = await grid.http.get("/batches", params={"cursor": "unknown"})
    assert (refused.status_code, word(refused)) == (422, "invalid-request")

    def blocking() -> list[str]:
        with Client(grid.url) as client:
            return [batch.batch_id for batch in client.batches()]

    listed = await asyncio.to_thread(blocking)
    assert listed[:3] == ["listed-2", "listed-1", "listed-0"]
    assert len(listed) == len(set(listed))
    async with AsyncClient(grid.url) as client:
        assert [batch.batch_id async for batch in client.batches()] == listed
