"""Shared data, events, and what the grid reports about itself over HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from raygrid.models import BlobSlice
from tests.support.http import events_of, manifest, parts_of, unzip, word
from tests.support.small_grid import PRICERS, SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(
        tmp_path_factory.mktemp("grid"),
        racks=2,
        slots=2,
        groups={"rack-a": {"site": "london", "quota": 1}, "rack-b": {"site": "zurich"}},
        default_pricer="shell",
        pricers={**PRICERS, "shell": {**PRICERS["shell"], "version": "2.1"}},
    ) as running:
        yield running


# --- shared data ----------------------------------------------------------------------------------------------------


async def test_shared_data_is_stored_listed_and_used(grid: SmallGrid) -> None:
    """What PUT /data stored lies under data/ in the job directory, and is no part of the result."""
    curve = os.urandom(100_000)
    stored = await grid.http.put("/data/curve.bin", content=curve)
    assert stored.status_code == 201
    digest = sha256(curve).hexdigest()
    assert (stored.json()["name"], stored.json()["digest"], stored.json()["size"]) == ("curve.bin", digest, 100_000)
    listed = {each["name"]: each for each in (await grid.http.get("/data")).json()["data"]}
    assert (listed["curve.bin"]["digest"], listed["curve.bin"]["size"]) == (digest, 100_000)
    assert listed["curve.bin"]["stored_at"].endswith("Z")
    answer = await grid.submit("uses-data", "sha256sum data/curve.bin", data=["curve.bin"])
    files = unzip(answer)
    assert files["stdout.txt"].split()[0].decode() == digest
    assert sorted(files) == ["manifest.json", "stderr.txt", "stdout.txt"]
    assert manifest(answer)["data"] == [{"name": "curve.bin", "digest": digest, "size": 100_000}]


async def test_shared_data_is_fetched_once_by_each_node(grid: SmallGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs use a shared input, a node fetches it from the blob store once."""
    fetched: list[str] = []
    fetch = grid.blobs.fetch_now

    def counted(blob: BlobSlice, path: Path) -> None:
        fetched.append(f"{path.parent.parent.name} {path.name}")
        fetch(blob, path)

    monkeypatch.setattr(grid.blobs, "fetch_now", counted)
    market = b"spot 100\n" * 10_000
    await grid.http.put("/data/market", content=market)
    files = [(f"market-{number}", ("job.sh", b"wc -c < data/market")) for number in range(30)]
    await grid.http.post("/batches", files=files, data={"data": "market", "batchId": "b-market"})
    parts, complete = parts_of(await grid.http.get("/batches/b-market/results", params={"wait": 60}))
    assert complete
    assert {unzip(part.body)["stdout.txt"].strip() for part in parts} == {str(len(market)).encode()}
    assert len(parts) == 30
    of_market = [each for each in fetched if each.endswith(sha256(market).hexdigest())]
    assert len(of_market) == len(set(of_market)) <= 2


async def test_a_name_may_point_at_new_content_but_a_job_may_not_change(grid: SmallGrid) -> None:
    """New content under an old name is used by new jobs; the jobId that ran with the old content is a conflict."""
    await grid.http.put("/data/fx", content=b"old")
    first = await grid.submit("fx-1", "cat data/fx", data=["fx"])
    await grid.http.put("/data/fx", content=b"new")
    again = await grid.submit("fx-1", "cat data/fx", data=["fx"])
    assert (again.status_code, word(again)) == (409, "conflict")
    assert unzip(await grid.submit("fx-2", "cat data/fx", data=["fx"]))["stdout.txt"] == b"new"
    await grid.http.put("/data/fx", content=b"old")
    assert (await grid.submit("fx-1", "cat data/fx", data=["fx"])).headers["etag"] == first.headers["etag"]


async def test_malformed_shared_data_is_refused(grid: SmallGrid) -> None:
    """Unknown, empty and badly named shared data are refused with a message."""
    unknown = await grid.submit("no-data", "true", data=["nobody"])
    assert (unknown.status_code, word(unknown)) == (422, "unknown-data")
    assert "PUT /data/nobody" in unknown.json()["detail"]
    assert word(await grid.http.put("/data/empty", content=b"")) == "invalid-request"
    assert word(await grid.http.put("/data/a%20b", content=b"x")) == "invalid-request"
    assert "empty" not in {each["name"] for each in (await grid.http.get("/data")).json()["data"]}


# --- events ---------------------------------------------------------------------------------------------------------


async def test_a_jobs_events_end_with_the_job(grid: SmallGrid, tmp_path: Path) -> None:
    """A job's stream has each state as it comes, and ends with the job."""
    gate = tmp_path / "gate"
    await grid.submit("ev-1", f"while [ ! -e {gate} ]; do sleep 0.02; done", wait=0)
    text = ""
    async with grid.http.stream("GET", "/events", params={"job": "ev-1"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for chunk in answer.aiter_text():
            text += chunk
            if '"running"' in text:
                gate.touch()
    events = events_of(text)
    states = [event.data["state"] for event in events[:-1]]
    assert states in (["queued", "running", "done"], ["running", "done"])
    assert (events[-1].kind, events[-1].data) == ("end", {})
    assert [event.kind for event in events[:-1]] == ["state"] * len(states)
    ids = [event.id for event in events[:-1]]
    assert ids == sorted(set(ids))
    assert events[-2].data == await grid.status("ev-1")


async def test_events_resume_after_the_last_one_seen(grid: SmallGrid) -> None:
    """With Last-Event-ID nothing comes twice; resumed before the end, the end comes again."""
    await grid.submit("ev-2", "true")
    whole = events_of((await grid.http.get("/events", params={"job": "ev-2"})).text)
    assert [event.data.get("state") for event in whole] == ["done", None]
    seen = {"Last-Event-ID": str(whole[0].id)}
    rest = events_of((await grid.http.get("/events", params={"job": "ev-2"}, headers=seen)).text)
    assert [event.kind for event in rest] == ["end"]


async def test_a_batchs_events_end_with_its_last_job(grid: SmallGrid) -> None:
    """A batch's stream has each job's end once, resumes anywhere, and ends when all have ended."""
    files = [(f"ev-b-{number}", ("job.sh", b"exit 0" if number else b"exit 1")) for number in range(4)]
    await grid.http.post("/batches", files=files, data={"batchId": "b-events"})
    events = events_of((await grid.http.get("/events", params={"batch": "b-events"})).text)
    assert events[-1].kind == "end"
    ended = {
        event.data["jobId"]: event.data["state"] for event in events[:-1] if event.data["state"] in ("done", "failed")
    }
    assert ended == {"ev-b-0": "failed", "ev-b-1": "done", "ev-b-2": "done", "ev-b-3": "done"}
    last_words = events_of((await grid.http.get("/events", params={"batch": "b-events"})).text)
    assert len(last_words) == 5
    for index, event in enumerate(last_words[:-1]):
        rest = await grid.http.get("/events", params={"batch": "b-events"}, headers={"Last-Event-ID": str(event.id)})
        assert events_of(rest.text) == last_words[index + 1 :]


async def test_events_need_one_existing_job_or_batch(grid: SmallGrid) -> None:
    """Anything else is refused."""
    assert word(await grid.http.get("/events")) == "invalid-request"
    assert word(await grid.http.get("/events?job=a&batch=b")) == "invalid-request"
    assert word(await grid.http.get("/events?job=nobody")) == "job-not-found"


# --- the grid -------------------------------------------------------------------------------------------------------


async def test_the_grid_reports_its_load(grid: SmallGrid, tmp_path: Path) -> None:
    """Capacity, groups and nodes agree on slots, quota and what runs."""

    async def idle() -> bool:
        load = (await grid.http.get("/capacity")).json()
        assert [group["site"] for group in load.pop("groups")] == ["london", "zurich"]
        return bool(load == {"slots": 3, "running": 0, "free": 3, "queued": 0})

    await grid.until(idle)
    gate = tmp_path / "gate"
    for number in range(3):
        await grid.submit(f"load-{number}", f"while [ ! -e {gate} ]; do sleep 0.02; done", wait=0)
    for number in range(3):
        await grid.until_state(f"load-{number}", "running")

    async def full() -> bool:
        load = (await grid.http.get("/capacity")).json()
        assert [group["site"] for group in load.pop("groups")] == ["london", "zurich"]
        return bool(load == {"slots": 3, "running": 3, "free": 0, "queued": 0})

    await grid.until(full)
    groups = {each["group"]: each for each in (await grid.http.get("/groups")).json()["groups"]}
    moved = {"inputs": int, "data": int, "results": int, "served": int}
    assert {name: type(count) for name, count in groups["rack-a"].pop("traffic").items()} == moved
    assert (groups["rack-a"].pop("leader"), groups["rack-a"].pop("term")) == ("test-0", 1)
    assert groups["rack-a"] == {
        "group": "rack-a",
        "site": "london",
        "slots": 1,
        "running": 1,
        "free": 0,
        "queued": 0,
        "nodes": 1,
        "state": "ok",
        "lost_since": None,
        "handed_over_at": None,
        "handed_over_by": None,
        "unfinished": None,
    }
    assert (groups["rack-b"]["site"], groups["rack-b"]["running"]) == ("zurich", 2)
    nodes = {each["node"]: each for each in (await grid.http.get("/nodes")).json()["nodes"]}
    assert {name: type(count) for name, count in nodes["rack-b-1"].pop("traffic").items()} == moved
    sandbox = nodes["rack-b-1"].pop("sandbox")
    assert sandbox.keys() == {"mode", "active", "open"}
    assert sandbox["mode"] in ("protect", "strict", "off")
    assert nodes["rack-b-1"] == {
        "node": "rack-b-1",
        "group": "rack-b",
        "slots": 2,
        "running": 2,
        "state": "ok",
        "why": None,
        "drain_deadline_at": None,
        "drained_by": None,
    }
    gate.touch()
    await grid.until(idle)


async def test_the_pricers_are_listed(grid: SmallGrid) -> None:
    """Each configured pricer is listed: version, definition, whether it takes args, and which one is the default."""
    listed = {each["name"]: each for each in (await grid.http.get("/pricers")).json()["pricers"]}
    assert set(listed) == set(PRICERS)
    definitions = {name: listed[name].pop("definition") for name in listed}
    assert len(set(definitions.values())) == len(PRICERS)  # each has another command
    assert listed["shell"] == {
        "name": "shell",
        "version": "2.1",
        "takes_args": False,
        "result": "zip",
        "reuse": "off",
        "sandbox": "protect",
        "default": True,
    }
    assert (listed["args"]["takes_args"], listed["cat"]["result"], listed["cat"]["default"]) == (True, "stdout", False)


async def test_the_default_pricer_runs_where_none_is_named(grid: SmallGrid) -> None:
    """A submit without a pricer goes to the default one; the job has its name and version."""
    answer = await grid.http.post("/submit/defaulted", files={"file": ("a.sh", b"echo x")})
    assert answer.status_code == 200
    status = await grid.status("defaulted")
    assert (status["pricer"], status["version"]) == ("shell", "2.1")


async def test_affinity_keeps_jobs_together(grid: SmallGrid) -> None:
    """Jobs of one affinity key run in one group while it has room."""
    for number in range(6):
        await grid.submit(f"aff-{number}", "true", affinity="EURUSD")
    groups = {(await grid.status(f"aff-{number}"))["group"] for number in range(6)}
    assert len(groups) == 1


async def test_a_parent_reports_that_it_lives_and_is_ready(grid: SmallGrid) -> None:
    """/health/live and /health/ready answer 200."""
    assert (await grid.http.get("/health/live")).json() == {"status": "live"}
    ready = await grid.http.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


async def test_a_grid_without_leaders_is_not_ready(tmp_path: Path) -> None:
    """If no group has a leader, /health/ready and submits are 503 with Retry-After, and /health/live stays 200."""
    async with SmallGrid(tmp_path) as lonely:
        lonely.hide_leaders()

        async def not_ready() -> bool:
            return (await lonely.http.get("/health/ready")).status_code == 503

        await lonely.until(not_ready)
        refused = await lonely.submit("nowhere", "true")
        assert (refused.status_code, word(refused)) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await lonely.http.get("/health/live")).status_code == 200
        lonely.show_leaders()

        async def ready() -> bool:
            return (await lonely.http.get("/health/ready")).status_code == 200

        await lonely.until(ready)
        assert (await lonely.submit("nowhere", "true")).status_code == 200


async def test_a_full_queue_gets_429_with_retry_after(tmp_path: Path) -> None:
    """Beyond `routing.max_queued` a submit gets 429 with Retry-After, and nothing of it is kept."""
    async with SmallGrid(tmp_path, slots=1, routing={"max_queued": 2}, placement={"prefetch": 0}) as small:
        gate = tmp_path / "gate"
        script = f"while [ ! -e {gate} ]; do sleep 0.02; done"
        await small.submit("full-run", script, wait=0)
        await small.until_state("full-run", "running")
        answers: list[httpx.Response] = []

        async def refused() -> bool:
            answers.append(await small.submit(f"full-{len(answers)}", script, wait=0))
            return answers[-1].status_code == 429

        await small.until(refused)
        assert len(answers) >= 3
        assert word(answers[-1]) == "busy"
        assert int(answers[-1].headers["retry-after"]) >= 1
        assert (await small.http.get(f"/status/full-{len(answers) - 1}")).status_code == 404
        gate.touch()
        await asyncio.gather(*(small.until_state(f"full-{i}", "done") for i in range(len(answers) - 1)))
