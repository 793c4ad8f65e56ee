"""PostgreSQL dies while jobs run, and comes back: nothing acknowledged is lost, and no intervention is needed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from raygrid.errors import UnavailableError
from raygrid.leader import actor
from raygrid.models import JobState
from raygrid.settings.model import load_settings
from tests.support.elected_grid import ElectedGrid
from tests.support.http import parts_of
from tests.support.postgres import Postgres
from tests.support.small_grid import PRICERS, _Nodes

pytestmark = pytest.mark.leases

JOBS = 500


@pytest.fixture
async def grid(tmp_path: Path, database: str) -> AsyncIterator[ElectedGrid]:
    async with ElectedGrid(tmp_path, nodes=2, slots=2, storage={"database": database}) as running:
        yield running


async def submit_until_taken(grid: ElectedGrid, job_id: str, script: str) -> list[int]:
    """What a client does: sends the job again, under the same id, until it is acknowledged; gives the refusals."""
    refusals: list[int] = []
    while True:
        answer = await grid.submit(job_id, script, wait=0)
        if answer.is_success:
            return refusals
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        refusals.append(answer.status_code)
        await asyncio.sleep(0.1)  # sooner than asked, to be refused more often


async def test_every_acknowledged_job_is_done_though_the_job_store_dies_and_comes_back(
    grid: ElectedGrid, postgres: Postgres, tmp_path: Path
) -> None:
    """Of 500 jobs taken before, in and after an outage each is done and has one result that stays."""
    runs = tmp_path / "runs"
    runs.touch()
    scripts = {f"j{n}": f"echo j{n} >> {runs}; exec true" for n in range(JOBS)}
    early = dict(list(scripts.items())[: JOBS // 2])
    files = [(job_id, ("job.sh", script.encode())) for job_id, script in early.items()]
    answer = await grid.http.post("/batches", files=files, data={"pricer": "shell", "batchId": "early"})
    assert answer.status_code == 202

    async def some_ran() -> bool:
        return len(runs.read_text().split()) > 30

    await grid.until(some_ran)
    at_once = asyncio.Semaphore(10)

    async def submit(job_id: str) -> list[int]:
        async with at_once:
            return await submit_until_taken(grid, job_id, scripts[job_id])

    late = [asyncio.create_task(submit(job_id)) for job_id in scripts.keys() - early.keys()]
    try:
        await asyncio.to_thread(postgres.stop)
        await refused_for_a_while(grid)
    finally:
        await asyncio.to_thread(postgres.start)
    refusals = [status for each in await asyncio.gather(*late) for status in each]
    assert refusals

    jobs = {job_id: await grid.until_state(job_id, "done", "failed") for job_id in scripts}
    assert Counter(job["state"] for job in jobs.values()) == {"done": JOBS}
    parts, complete = parts_of(await grid.http.get("/batches/early/results", params={"wait": 60}))
    assert complete
    assert Counter(part.job_id for part in parts) == Counter(dict.fromkeys(early, 1))
    assert {part.state for part in parts} == {JobState.DONE}
    first, again = [await etags(grid, list(scripts)) for _ in range(2)]
    assert first == again
    assert set(runs.read_text().split()) == set(scripts)
    assert len(grid.terms) > 1


async def refused_for_a_while(grid: ElectedGrid) -> None:
    """Refused for longer than a lease: the leader must step down, and lead again."""
    began = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() - began < 4:
        answer = await grid.submit("refused", "true", wait=0)
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:raygrid:problem:unavailable"
        assert int(answer.headers["Retry-After"]) >= 1
        assert "s3cret" not in answer.text


async def etags(grid: ElectedGrid, job_ids: list[str]) -> dict[str, str]:
    answers: dict[str, httpx.Response] = {job_id: await grid.http.get(f"/result/{job_id}") for job_id in job_ids}
    return {job_id: answer.headers["ETag"] for job_id, answer in answers.items()}


async def test_a_submit_in_the_outage_succeeds_afterwards_under_the_same_id(
    grid: ElectedGrid, postgres: Postgres, tmp_path: Path
) -> None:
    """A client that got 503 sends the same again after Retry-After, and gets its result; the job runs once."""
    script = f"echo ran >> {tmp_path}/runs"
    try:
        await asyncio.to_thread(postgres.kill)
        answer = await grid.submit("again", script)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:raygrid:problem:unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
    finally:
        await asyncio.to_thread(postgres.start)
    assert (await grid.submit("again", script)).status_code == 200
    assert (tmp_path / "runs").read_text() == "ran\n"


async def test_a_leader_that_starts_before_the_job_store_leads_once_it_is_there(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a power cut the machines come up in any order; no group has to be started by hand."""
    monkeypatch.setattr(actor, "RayNodes", lambda *_: _Nodes({}))
    monkeypatch.setattr(actor, "OPEN_AGAIN_S", 0.1)
    settings = load_settings(None, pricers=PRICERS, storage={"database": database})
    candidate = actor.LeaderActor("rack-a", settings, "leader:rack-a:1", object)

    async def leads() -> bool:
        with suppress(UnavailableError):
            return (await candidate.calls.changes("", 0, 0)).capacity.group_id == "rack-a"
        return False

    async def tried() -> bool:
        return caplog.text.count("cannot open the job store") > 1

    try:
        await asyncio.to_thread(postgres.stop)
        await candidate.open()
        await ElectedGrid.until(tried)
        assert not await leads()
        await asyncio.to_thread(postgres.start)
        await ElectedGrid.until(leads)
    finally:
        if not postgres.is_open:
            await asyncio.to_thread(postgres.start)
        await candidate.close()
