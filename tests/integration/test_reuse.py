"""Repricing a book runs only what changed: `reuse: content` over HTTP, with pricers that count their runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from raygrid.client import AsyncClient, Client
from raygrid.models import JobState
from raygrid.transport.ports import JobChange
from tests.support.http import events_of, manifest, parts_of, unzip, word
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")


def pricers(log: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """Each writes its input, a line, into the log whenever it runs."""
    script = f'cat "$0" >> {log}; echo "$@"; cat data/* 2> /dev/null; '
    counted = {"command": ["sh", "-c", script + "true", "{input}", "{args}"], "reuse": "content", **changes}
    return {
        "counted": counted,
        "always": {**counted, "reuse": "off"},
        "failing": {**counted, "command": ["sh", "-c", script + "exit 3", "{input}"]},
        "slow": {**counted, "command": ["sh", "-c", script + "sleep 30", "{input}"]},
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    directory = tmp_path_factory.mktemp("grid")
    async with SmallGrid(directory, slots=3, pricers=pricers(directory / "log")) as running:
        yield running


def runs(grid: SmallGrid, line: str) -> int:
    """How often pricers ran with this input."""
    log = grid.directory / "log"
    return log.read_text().split("\n").count(line) if log.exists() else 0


async def price(grid: SmallGrid, job_id: str, line: str, **options: Any) -> httpx.Response:
    return await grid.submit(job_id, f"{line}\n", **{"pricer": "counted", "filename": "book.csv", **options})


async def batch(grid: SmallGrid, batch_id: str, lines: dict[str, str]) -> dict[str, Any]:
    files = [(job_id, ("book.csv", f"{line}\n".encode())) for job_id, line in lines.items()]
    answer = await grid.http.post("/batches", files=files, data={"pricer": "counted", "batchId": batch_id})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_the_same_work_under_another_id_runs_nothing(grid: SmallGrid) -> None:
    """The second job has the same bytes as the first, the id of the first, and no attempt."""
    first, second = await price(grid, "a-1", "a"), await price(grid, "a-2", "a")
    assert (first.status_code, second.status_code) == (200, 200)
    assert runs(grid, "a") == 1
    assert second.content == first.content
    assert "Raygrid-Reused-From" not in first.headers
    assert (second.headers["Raygrid-Job-Id"], second.headers["Raygrid-Reused-From"]) == ("a-2", "a-1")
    assert manifest(second)["jobId"] == "a-1"
    ran, reused = await grid.status("a-1"), await grid.status("a-2")
    assert (ran["reusedFrom"], reused["reusedFrom"]) == (None, "a-1")
    assert (reused["state"], reused["attempts"], reused["node"], reused["exit_code"]) == ("done", 0, None, 0)
    assert reused["result_digest"] == ran["result_digest"]


async def test_a_submit_that_does_not_wait_gets_the_result_at_once(grid: SmallGrid) -> None:
    """The answer has the job as new and done, with the job that ran; sent again, it is the same job."""
    await price(grid, "b-1", "b")
    form: dict[str, Any] = {
        "files": {"file": ("book.csv", b"b\n")},
        "data": {"pricer": "counted", "jobId": "b-2"},
    }
    answers = [(await grid.http.post("/submit", **form)).json() for _ in range(2)]
    assert [(each["state"], each["created"], each["reusedFrom"]) for each in answers] == [
        ("done", True, "b-1"),
        ("done", False, "b-1"),
    ]
    third = await price(grid, "b-3", "b")
    assert third.headers["Raygrid-Reused-From"] == "b-1", "a chain leads to the job that ran"
    assert runs(grid, "b") == 1


async def test_no_leader_gets_a_reused_job(grid: SmallGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that took over a result is promised to no group and poked at no leader."""
    await price(grid, "c-1", "c")
    poked: list[str] = []
    leader = grid.leaders["rack-a"].leader
    with monkeypatch.context() as patch:
        patch.setattr(leader, "enqueue", lambda jobs: poked.extend(each.job_id for each in jobs))
        assert (await price(grid, "c-2", "c")).status_code == 200
        assert (await batch(grid, "c", {"c-3": "c", "c-4": "c"}))["reused"] == 2
        assert [known.promised for known in grid.parent.groups.known] == [0]
    assert poked == []


async def test_repricing_a_book_runs_only_what_changed(grid: SmallGrid) -> None:
    """A batch of which one input is new runs that one; answer, counts, stream and events have the others as done."""
    book = {f"mon-{n}": f"trade {n}" for n in range(6)}
    taken = await batch(grid, "monday", book)
    assert (taken["created"], taken["reused"]) == (6, 0)
    monday, complete = parts_of(await grid.http.get("/batches/monday/results", params={"wait": 30}))
    assert complete
    taken = await batch(grid, "tuesday", {f"tue-{n}": f"trade {n if n else 'new'}" for n in range(6)})
    assert (taken["total"], taken["created"], taken["attached"], taken["reused"]) == (6, 6, 0, 5)
    tuesday, complete = parts_of(await grid.http.get("/batches/tuesday/results", params={"wait": 30}))
    assert complete
    assert [runs(grid, f"trade {n}") for n in (0, 1, 2, 3, 4, 5, "new")] == [1] * 7
    bodies = {part.job_id.removeprefix("mon-"): part.body for part in monday}
    for part in tuesday:
        number = part.job_id.removeprefix("tue-")
        assert part.state is JobState.DONE
        assert part.reused_from == (f"mon-{number}" if number != "0" else None)
        assert (part.body == bodies[number]) == (number != "0")
    status = (await grid.http.get("/batches/tuesday")).json()
    assert (status["finished"], status["counts"]["done"], status["reused"]) == (True, 6, 5)
    seen = events_of((await grid.http.get("/events", params={"batch": "tuesday"})).text)
    last = {event.data["jobId"]: event.data for event in seen if event.kind == "state"}
    assert {job["state"] for job in last.values()} == {"done"}
    assert last["tue-3"]["reusedFrom"] == "mon-3"


async def test_equal_jobs_of_one_batch_each_run(grid: SmallGrid) -> None:
    """No job waits for an equal job that has not ended: in one batch, or beside one that runs, both run."""
    await batch(grid, "twins", {"twin-1": "twin", "twin-2": "twin"})
    await grid.until_state("twin-1", "done")
    await grid.until_state("twin-2", "done")
    assert runs(grid, "twin") == 2


async def test_a_wait_for_a_batch_is_answered_at_once_by_a_reused_job(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that takes over a result wakes the streams of its batch."""
    await price(grid, "d-1", "d")
    woken: list[JobChange] = []
    with monkeypatch.context() as patch:
        patch.setattr(grid.parent.waiters, "changed", woken.extend)
        await batch(grid, "waited", {"d-2": "d"})
    assert JobChange("d-2", JobState.DONE) in woken


async def test_another_job_under_a_taken_id_is_still_a_conflict(grid: SmallGrid) -> None:
    """A jobId stays with its input, even if the result of the new input exists."""
    await price(grid, "e-1", "e")
    await price(grid, "f-1", "f")
    refused = await price(grid, "e-1", "f")
    assert (refused.status_code, word(refused)) == (409, "conflict")
    assert unzip(await price(grid, "e-1", "e")) == unzip(await grid.http.get("/result/e-1"))


async def test_anything_that_may_change_the_answer_runs_anew(grid: SmallGrid) -> None:
    """Other args, another name of the input, and shared data of other content under the same name."""
    await grid.http.put("/data/market", content=b"monday")
    first = await price(grid, "g-1", "g", data="market")
    same = await price(grid, "g-2", "g", data="market")
    assert same.headers["Raygrid-Reused-From"] == "g-1"
    await grid.http.put("/data/market", content=b"tuesday")
    others = [
        await price(grid, "g-3", "g", data="market"),
        await price(grid, "g-4", "g"),
        await price(grid, "g-5", "g", args=["--fast"]),
        await price(grid, "g-6", "g", filename="other.csv"),
    ]
    assert not any("Raygrid-Reused-From" in each.headers for each in others)
    assert runs(grid, "g") == 1 + len(others)
    assert b"monday" in unzip(first)["stdout.txt"]
    assert b"tuesday" in unzip(others[0])["stdout.txt"]


async def test_reuse_is_off_unless_it_is_set(grid: SmallGrid) -> None:
    """A pricer without the setting runs every job, and `/pricers` shows which has it."""
    for job_id in ("h-1", "h-2"):
        assert "Raygrid-Reused-From" not in (await price(grid, job_id, "h", pricer="always")).headers
    assert runs(grid, "h") == 2
    listed = (await grid.http.get("/pricers")).json()["pricers"]
    assert {each["name"]: each["reuse"] for each in listed}["always"] == "off"
    assert {each["name"]: each["reuse"] for each in listed}["counted"] == "content"


async def test_failed_and_cancelled_jobs_are_not_reused(grid: SmallGrid) -> None:
    """A failed or cancelled job has no result for another job."""
    for job_id in ("i-1", "i-2"):
        assert (await price(grid, job_id, "i", pricer="failing")).status_code == 422
    assert runs(grid, "i") == 2
    for number in (1, 2):
        await price(grid, f"j-{number}", "j", pricer="slow", wait=0)
        await grid.until_state(f"j-{number}", "running")

        async def has_begun(number: int = number) -> bool:
            return runs(grid, "j") == number

        await grid.until(has_begun)
        await grid.http.delete(f"/jobs/j-{number}")
        await grid.until_state(f"j-{number}", "cancelled")


async def test_a_purge_keeps_a_result_that_a_younger_job_shares(grid: SmallGrid) -> None:
    """The older job's result is gone, the younger one's is reused by the next job; in the end everything runs anew."""
    first = await price(grid, "k-1", "k")
    ended_at = (await grid.store.get(["k-1"]))["k-1"].ended_at
    assert ended_at is not None
    await price(grid, "k-2", "k")
    await grid.store.purge(ended_at + timedelta(microseconds=1), 100_000)
    await grid.blobs.delete((await grid.store.purge(ended_at + timedelta(microseconds=1))).blob_keys)
    assert word(await grid.http.get("/result/k-1")) == "result-expired"
    assert (await grid.http.get("/result/k-2")).content == first.content
    third = await price(grid, "k-3", "k")
    assert (third.content, third.headers["Raygrid-Reused-From"]) == (first.content, "k-1")
    assert runs(grid, "k") == 1
    await grid.purge(timedelta(days=30))
    assert word(await grid.http.get("/result/k-3")) == "result-expired"
    assert "Raygrid-Reused-From" not in (await price(grid, "k-4", "k")).headers
    assert runs(grid, "k") == 2


async def test_a_result_whose_blob_is_gone_is_made_anew(grid: SmallGrid) -> None:
    """The blob store has lost the result: the job runs, and later ones share what it made."""
    await price(grid, "l-1", "l")
    result = (await grid.store.get(["l-1"]))["l-1"].result
    assert result is not None
    await grid.blobs.delete([result.key])
    again = await price(grid, "l-2", "l")
    assert (again.status_code, runs(grid, "l")) == (200, 2)
    assert "Raygrid-Reused-From" not in again.headers
    assert (await price(grid, "l-3", "l")).headers["Raygrid-Reused-From"] == "l-2"


async def test_the_client_shows_where_a_result_comes_from(grid: SmallGrid) -> None:
    """Results of single jobs and of batches name the job that ran, as their manifests and the status do."""
    async with AsyncClient(grid.url) as client:
        ran = await client.submit(b"m\n", job_id="m-1", filename="book.csv", pricer="counted")
        assert (await ran.result(30)).reused_from is None
        reused = await client.submit(b"m\n", job_id="m-2", filename="book.csv", pricer="counted")
        result = await reused.result(30)
        assert (result.job_id, result.reused_from, result.manifest["jobId"]) == ("m-2", "m-1", "m-1")
        assert (await reused.status()).reused_from == "m-1"
        await client.submit(b"n\n", job_id="n-1", pricer="counted")
        await (client.job("n-1")).result(30)
        jobs = await client.map({"n-2": b"n\n", "o-1": b"o\n"}, batch_id="mixed", pricer="counted")
        found = [each async for each in jobs.results(30)]
        assert [each.reused_from for each in found] == ["n-1", None]
        assert (await jobs.status()).reused == 1

    def blocking() -> str:
        with Client(grid.url) as client:
            return next(each.reuse for each in client.pricers() if each.name == "counted")

    assert await asyncio.to_thread(blocking) == "content"


async def test_another_version_or_command_runs_anew(tmp_path: Path) -> None:
    """After a deployment with another version no earlier result is reused."""
    log = tmp_path / "log"
    async with SmallGrid(tmp_path, pricers=pricers(log)) as grid:
        await price(grid, "v-1", "v")
        await grid.deploy(pricers=pricers(log, version="2"))

        async def follows() -> bool:
            return all(node.agent._deployed_at == grid.settings.deployed_at for node in grid.nodes.values())

        await grid.until(follows)
        assert "Raygrid-Reused-From" not in (await price(grid, "v-2", "v")).headers
        assert (await price(grid, "v-3", "v")).headers["Raygrid-Reused-From"] == "v-2"
        await grid.deploy(pricers=pricers(log))
        assert (await price(grid, "v-4", "v")).headers["Raygrid-Reused-From"] == "v-1"
        await grid.deploy(pricers=pricers(log, env={"MODEL": "b"}))
        await grid.until(follows)
        assert "Raygrid-Reused-From" not in (await price(grid, "v-5", "v")).headers
        assert runs(grid, "v") == 3
        assert json.loads(unzip(await grid.http.get("/result/v-4"))["manifest.json"])["version"] == "1"
