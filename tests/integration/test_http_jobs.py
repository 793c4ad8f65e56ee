"""Submitting, following, fetching, cancelling and listing single jobs over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from raygrid.system.proc import process_table
from raygrid.system.processes import mark_of
from tests.support.http import manifest, unzip, word
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    # Without prefetch a job is queued until a slot is free for it, so that places in the queue can be counted.
    async with SmallGrid(tmp_path_factory.mktemp("grid"), slots=2, placement={"prefetch": 0}) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def gate(grid: SmallGrid, tmp_path: Path) -> AsyncIterator[Path]:
    """A file that jobs wait for; it is made in the end for all that still wait."""
    path = tmp_path / "gate"
    yield path
    path.touch()

    async def idle() -> bool:
        load = (await grid.http.get("/capacity")).json()
        return bool(load["running"] == load["queued"] == 0)

    await grid.until(idle)


def waiting_for(gate: Path, then: str = "") -> str:
    """A script that runs until a file is there."""
    return f"while [ ! -e {gate} ]; do sleep 0.02; done; {then}"


async def occupy(grid: SmallGrid, gate: Path, name: str) -> list[str]:
    """Fill both slots with jobs that wait for the gate."""
    job_ids = [f"{name}-holder-{number}" for number in range(2)]
    for job_id in job_ids:
        assert (await grid.submit(job_id, waiting_for(gate), wait=0)).status_code == 202
    for job_id in job_ids:
        await grid.until_state(job_id, "running")
    return job_ids


# --- submit ---------------------------------------------------------------------------------------------------------


async def test_the_answer_carries_the_digest_and_the_job_id(grid: SmallGrid) -> None:
    """A synchronous submit names its job and the sha256 of the very bytes it sends."""
    answer = await grid.submit("sync-1", "echo 42")
    assert answer.status_code == 200
    assert answer.headers["raygrid-job-id"] == "sync-1"
    assert answer.headers["etag"] == f'"{sha256(answer.content).hexdigest()}"'
    assert answer.headers["content-disposition"] == 'attachment; filename="sync-1.zip"'


async def test_the_manifest_is_complete(grid: SmallGrid) -> None:
    """The manifest names the job, its attempt, node, pricer, input, outcome, times, and each file with its digest."""
    script = "echo 42 > price.txt"
    answer = await grid.submit("story", script, filename="trade.sh")
    reported = manifest(answer)
    assert {key: reported[key] for key in ("jobId", "attempt", "node", "pricer", "version", "args", "outcome")} == {
        "jobId": "story",
        "attempt": 1,
        "node": "rack-a-1",
        "pricer": "shell",
        "version": "1",
        "args": [],
        "outcome": "exited",
    }
    assert reported["input"] == {
        "name": "trade.sh",
        "digest": sha256(script.encode()).hexdigest(),
        "size": len(script),
    }
    assert reported["files"] == [{"name": "price.txt", "size": 3, "digest": sha256(b"42\n").hexdigest()}]
    assert reported["exit_code"] == 0
    assert reported["signal"] is None
    assert reported["wall_s"] >= 0
    assert datetime.fromisoformat(reported["started_at"]) <= datetime.fromisoformat(reported["ended_at"])


async def test_prefer_respond_async_answers_at_once(grid: SmallGrid, gate: Path) -> None:
    """With `Prefer: respond-async` the answer is 202 with where to look, while the job still runs."""
    files = {"file": ("job.sh", waiting_for(gate).encode())}
    answer = await grid.http.post(
        "/submit/async-1", files=files, data={"pricer": "shell"}, headers={"Prefer": "respond-async"}
    )
    assert answer.status_code == 202
    assert answer.headers["location"] == "/status/async-1"
    assert answer.json() == {
        "jobId": "async-1",
        "state": "queued",
        "created": True,
        "reusedFrom": None,
        "status_url": "/status/async-1",
        "result_url": "/result/async-1",
    }
    gate.touch()
    assert (await grid.http.get("/result/async-1", params={"wait": 30})).status_code == 200


async def test_a_wait_that_runs_out_answers_202(grid: SmallGrid, gate: Path) -> None:
    """When the wait is over before the job, the answer has the address of the job, which goes on."""
    answer = await grid.submit("slow-1", waiting_for(gate, "echo late"), wait=0.2)
    assert answer.status_code == 202
    assert answer.headers["location"] == "/status/slow-1"
    assert answer.json()["state"] in ("queued", "running")
    gate.touch()
    assert unzip(await grid.submit("slow-1", waiting_for(gate, "echo late")))["stdout.txt"] == b"late\n"


@pytest.mark.parametrize("prefer", ["Respond-Async", "wait=30, RESPOND-ASYNC"])
async def test_a_preference_counts_in_any_capitals(grid: SmallGrid, gate: Path, prefer: str) -> None:
    """Names of preferences are the same in small and in capital letters (RFC 7240)."""
    files = {"file": ("job.sh", f"while [ ! -e {gate} ]; do sleep 0.02; done".encode())}
    job_id = f"prefer-{len(prefer)}"
    answer = await grid.http.post(
        f"/submit/{job_id}", files=files, data={"pricer": "shell"}, headers={"Prefer": prefer}
    )
    assert (answer.status_code, answer.json()["jobId"]) == (202, job_id)
    gate.touch()


async def test_prefer_wait_is_understood(grid: SmallGrid, gate: Path) -> None:
    """`Prefer: wait=0` is as good as `?wait=0`."""
    files = {"file": ("job.sh", waiting_for(gate).encode())}
    answer = await grid.http.post(
        "/submit/prefer-wait", files=files, data={"pricer": "shell"}, headers={"Prefer": "wait=0"}
    )
    assert answer.status_code == 202


async def test_submit_without_an_id_makes_one(grid: SmallGrid) -> None:
    """POST /submit gives every job an id of its own where the client names none."""
    files = {"file": ("a.txt", b"hello")}
    answers = [await grid.http.post("/submit", files=files, data={"pricer": "cat"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    first, second = (answer.json()["jobId"] for answer in answers)
    assert first != second
    assert answers[0].headers["location"] == f"/status/{first}"
    assert unzip(await grid.http.get(f"/result/{first}", params={"wait": 30}))["stdout.txt"] == b"hello"


async def test_submit_with_an_id_in_the_form(grid: SmallGrid) -> None:
    """POST /submit takes the jobId from the form, and a second time it creates nothing."""
    options = {"pricer": "cat", "jobId": "in-the-form"}
    answers = [await grid.http.post("/submit", files={"file": b"hello"}, data=options) for _ in range(2)]
    assert [(answer.status_code, answer.json()["created"]) for answer in answers] == [(202, True), (202, False)]
    assert {answer.json()["jobId"] for answer in answers} == {"in-the-form"}


async def test_a_pricer_may_answer_with_its_stdout(grid: SmallGrid) -> None:
    """The synchronous answer is then the pricer's output; the ZIP stays at /result."""
    printed = bytes(range(256)) * 100
    answer = await grid.http.post("/submit/printed", files={"file": printed}, data={"pricer": "cat"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == printed
    assert unzip(await grid.http.get("/result/printed"))["stdout.txt"] == printed


async def test_a_large_printed_result_is_streamed(grid: SmallGrid) -> None:
    """The output comes whole also if its ZIP is too large for memory."""
    printed = os.urandom(5 * 1024**2)
    answer = await grid.http.post("/submit/large-printed", files={"file": printed}, data={"pricer": "cat"})
    assert answer.content == printed


async def test_a_large_file_arrives_unchanged_both_ways(grid: SmallGrid) -> None:
    """Inputs and results of many megabytes arrive unchanged."""
    data = os.urandom(9 * 1024**2 + 1)
    answer = await grid.http.post("/submit/large", files={"file": data}, data={"pricer": "copy"})
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["etag"] == f'"{sha256(answer.content).hexdigest()}"'
    assert unzip(answer)["copy"] == data


async def test_arguments_arrive_literally(grid: SmallGrid) -> None:
    """No shell gets an argument: metacharacters, spaces, newlines and braces arrive unchanged."""
    args = [
        "$(touch /tmp/pwned)",
        "`id`",
        "; rm -rf /",
        "a b",
        "",
        "--flag",
        "ü€",
        "{input}",
        "*",
        "line\nbreak",
        "'\"",
    ]
    answer = await grid.http.post("/submit/args", files={"file": b"x"}, data={"pricer": "args", "args": args})
    assert unzip(answer)["stdout.txt"].decode() == "".join(f"{arg}\n" for arg in args)
    assert manifest(answer)["args"] == args


async def test_the_limit_of_time_may_be_the_clients(grid: SmallGrid) -> None:
    """A submit's own `timeout_s` ends the pricer, and the answer has that reason."""
    answer = await grid.submit("own-limit", "sleep 100", timeout_s="0.3")
    assert word(answer) == "job-failed"
    assert answer.json()["reason"] == "timeout"


# --- status and result ----------------------------------------------------------------------------------------------


async def test_the_status_of_a_done_job(grid: SmallGrid) -> None:
    """A status has everything about a job but its bytes."""
    answer = await grid.submit("told", "echo hi", priority="7")
    status = await grid.status("told")
    instants = [datetime.fromisoformat(status.pop(f"{name}_at")) for name in ("submitted", "started", "ended")]
    assert instants == sorted(instants)
    assert {instant.utcoffset() for instant in instants} == {timedelta(0)}
    assert status == {
        "jobId": "told",
        "state": "done",
        "pricer": "shell",
        "version": "1",
        "definition": grid.parent.definitions.digest("shell"),
        "attempts": 1,
        "group": "rack-a",
        "node": "rack-a-1",
        "priority": 7,
        "exit_code": 0,
        "signal": None,
        "reason": None,
        "message": None,
        "position": None,
        "cancel_requested": False,
        "cancelled_by": None,
        "owner": "local",
        "input_name": "job.sh",
        "input_digest": sha256(b"echo hi").hexdigest(),
        "input_size": 7,
        "result_digest": answer.headers["etag"].strip('"'),
        "result_size": len(answer.content),
        "reusedFrom": None,
        "batches": [],
        "status_url": "/status/told",
        "result_url": "/result/told",
    }


async def test_queued_jobs_know_their_place_and_run_in_order_of_priority(grid: SmallGrid, gate: Path) -> None:
    """Positions count from 0 in the order of priority, then arrival, and that is the order in which jobs run."""
    await occupy(grid, gate, "line")
    order = gate.parent / "order"
    for name, priority in (("low", -5), ("first", 0), ("second", 0), ("urgent", 9)):
        script = f"echo {name} >> {order}; sleep 0.05"
        assert (await grid.submit(f"line-{name}", script, wait=0, priority=str(priority))).status_code == 202
    # One slot only is free, so that the order of starts is the order of lines in the file.
    positions = {name: (await grid.status(f"line-{name}"))["position"] for name in ("urgent", "first", "second", "low")}
    assert positions == {"urgent": 0, "first": 1, "second": 2, "low": 3}
    await grid.http.delete("/jobs/line-holder-0")
    await grid.until_state("line-low", "done")
    assert order.read_text().split() == ["urgent", "first", "second", "low"]


async def test_a_result_that_is_not_there_yet_is_404(grid: SmallGrid, gate: Path) -> None:
    """Asking too early gets 404 `not-finished` with Retry-After; an unknown job gets 404 `job-not-found` without."""
    await grid.submit("early", waiting_for(gate), wait=0)
    early = await grid.http.get("/result/early")
    assert (early.status_code, word(early)) == (404, "not-finished")
    assert int(early.headers["retry-after"]) >= 1
    unknown = await grid.http.get("/result/nobody")
    assert (unknown.status_code, word(unknown)) == (404, "job-not-found")
    assert "retry-after" not in unknown.headers
    assert word(await grid.http.get("/status/nobody")) == "job-not-found"


async def test_a_wait_for_a_result_ends_with_the_job(grid: SmallGrid, gate: Path) -> None:
    """GET /result with `wait` answers as soon as the job has ended."""
    await grid.submit("awaited", waiting_for(gate, "echo there"), wait=0)
    waiting = asyncio.create_task(grid.http.get("/result/awaited", params={"wait": 30}))
    await grid.until_state("awaited", "running")
    gate.touch()
    assert unzip(await waiting)["stdout.txt"] == b"there\n"


async def test_a_known_result_is_not_sent_again(grid: SmallGrid) -> None:
    """If-None-Match with the result's ETag gets 304 and no body; with another one it gets the result."""
    etag = (await grid.submit("known", "echo x")).headers["etag"]
    for header in (etag, f"W/{etag}", f'"other", {etag}'):
        again = await grid.http.get("/result/known", headers={"If-None-Match": header})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await grid.http.get("/result/known", headers={"If-None-Match": '"other"'})).status_code == 200


async def test_submitting_again_is_not_a_conditional_get(grid: SmallGrid) -> None:
    """If-None-Match has no meaning for a submit: the result comes."""
    etag = (await grid.submit("unconditional", "echo x")).headers["etag"]
    answer = await grid.http.post(
        "/submit/unconditional",
        files={"file": ("job.sh", b"echo x")},
        data={"pricer": "shell"},
        headers={"If-None-Match": etag},
    )
    assert answer.status_code == 200


async def test_a_failed_job_gives_its_zip_only_when_asked(grid: SmallGrid) -> None:
    """GET /result of a failed job is 422 with the reason; with `even_if=failed` it is the ZIP."""
    await grid.submit("failing", "echo half > out.txt; echo 'no curve' >&2; exit 4")
    refused = await grid.http.get("/result/failing")
    assert (refused.status_code, word(refused)) == (422, "job-failed")
    reported = refused.json()
    assert (reported["jobId"], reported["reason"], reported["exit_code"]) == ("failing", "exit_code", 4)
    assert reported["stderr_tail"] == "no curve\n"
    kept = await grid.http.get("/result/failing", params={"even_if": "failed"})
    assert kept.status_code == 200
    assert unzip(kept)["out.txt"] == b"half\n"
    assert manifest(kept)["exit_code"] == 4
    assert word(await grid.http.get("/result/failing", params={"even_if": "cancelled"})) == "invalid-request"


async def test_a_purged_result_is_gone_for_good(grid: SmallGrid) -> None:
    """After its retention a job answers 410 to result and submit alike, keeps its status, and its bytes are gone."""
    await grid.submit("old", "echo x")
    key = (await grid.store.get(["old"]))["old"].result
    assert key is not None
    assert await grid.purge(timedelta(days=6)) == 0
    assert await grid.purge(timedelta(days=8)) >= 1
    gone = await grid.http.get("/result/old")
    assert (gone.status_code, word(gone)) == (410, "result-expired")
    assert (await grid.submit("old", "echo x")).status_code == 410
    assert (await grid.status("old"))["state"] == "done"
    assert not (grid.settings.grid_dir / "blobs" / key.key).exists()


# --- cancelling -----------------------------------------------------------------------------------------------------


async def test_a_cancelled_queued_job_never_runs(grid: SmallGrid, gate: Path) -> None:
    """Its result is 409 `job-cancelled`."""
    await occupy(grid, gate, "cq")
    ran = gate.parent / "ran"
    await grid.submit("cq-1", f"touch {ran}", wait=0)
    answer = await grid.http.delete("/jobs/cq-1")
    assert (answer.status_code, answer.json()) == (202, {"jobId": "cq-1", "state": "queued"})
    status = await grid.until_state("cq-1", "cancelled")
    assert (status["reason"], status["attempts"]) == ("cancelled", 0)
    gate.touch()
    await grid.until_state("cq-holder-0", "done")
    refused = await grid.http.get("/result/cq-1")
    assert (refused.status_code, word(refused)) == (409, "job-cancelled")
    assert not ran.exists()


async def test_cancelling_a_running_job_kills_its_whole_tree(grid: SmallGrid) -> None:
    """Children, grandchildren and daemons of a cancelled job are dead within seconds."""
    script = """
    sleep 1000 &
    sh -c 'sleep 1000 & sleep 1000' &
    setsid sh -c 'sleep 1000 & sleep 1000' &
    trap '' TERM
    touch started
    while true; do sleep 0.05; done
    """
    await grid.submit("tree", script, wait=0)

    def alive() -> list[int]:
        return [p.pid for p in process_table() if not p.is_zombie and "|tree.1" in (mark_of(p.pid) or "")]

    async def grown() -> bool:
        return len(alive()) >= 7

    async def dead() -> bool:
        return not alive()

    await grid.until(grown)
    await grid.until_state("tree", "running")
    assert (await grid.http.delete("/jobs/tree")).json() == {"jobId": "tree", "state": "running"}
    await grid.until_state("tree", "cancelled", within_s=5)
    await grid.until(dead, within_s=5)


async def test_cancelling_an_ended_job_changes_nothing(grid: SmallGrid) -> None:
    """DELETE of a done job is accepted and leaves its result; of an unknown job it is 404."""
    etag = (await grid.submit("over", "echo x")).headers["etag"]
    assert (await grid.http.delete("/jobs/over")).json() == {"jobId": "over", "state": "done"}
    assert (await grid.http.get("/result/over")).headers["etag"] == etag
    assert word(await grid.http.delete("/jobs/nobody")) == "job-not-found"


# --- listing --------------------------------------------------------------------------------------------------------


async def test_jobs_are_listed_in_pages(grid: SmallGrid) -> None:
    """Following `next_cursor` gives every job of a batch once, by id, with the status that /status gives."""
    job_ids = [f"page-{number}" for number in range(5)]
    files = [(job_id, ("x", b"exit 0" if job_id != "page-3" else b"exit 1")) for job_id in job_ids]
    await grid.http.post("/batches", files=files, data={"pricer": "shell", "batchId": "pages"})
    for job_id in job_ids:
        await grid.until_state(job_id, "done", "failed")
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        query: dict[str, str | int] = {"batch": "pages", "limit": 2}
        if cursor is not None:
            query["cursor"] = cursor
        page = (await grid.http.get("/jobs", params=query)).json()
        seen += [job["jobId"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == job_ids
    failed = (await grid.http.get("/jobs", params={"batch": "pages", "state": "failed"})).json()
    assert failed == {"jobs": [await grid.status("page-3")], "next_cursor": None}
    assert (await grid.http.get("/jobs", params={"batch": "nobody"})).json() == {"jobs": [], "next_cursor": None}


@pytest.mark.parametrize("query", ["state=lost", "limit=0", "limit=1001", "limit=x", "cursor=a/b", "batch=%00"])
async def test_a_wrong_query_is_refused(grid: SmallGrid, query: str) -> None:
    """Every parameter of the listing is checked."""
    answer = await grid.http.get(f"/jobs?{query}")
    assert (answer.status_code, word(answer)) == (422, "invalid-request")


@pytest.mark.parametrize("wait", ["-1", "nan", "inf", "1e9", "soon"])
async def test_a_wrong_wait_is_refused(grid: SmallGrid, wait: str) -> None:
    """A wait is a finite number of seconds, not below zero."""
    answer: httpx.Response = await grid.http.get("/result/whatever", params={"wait": wait})
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert json.loads(answer.content)["detail"].startswith("query.wait")
