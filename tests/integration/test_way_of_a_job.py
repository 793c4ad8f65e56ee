"""The whole way of a job through real tiers in one process: submit, run, result."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from raygrid.models import StoredJob
from tests.support.small_grid import SmallGrid


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(tmp_path) as running:
        yield running


async def test_a_submitted_file_gives_a_zip(grid: SmallGrid) -> None:
    """The synchronous submit answers with a ZIP of what the pricer printed and wrote, and a manifest."""
    answer = await grid.submit("trade-1", "echo priced; echo 42 > price.txt; mkdir -p deep; echo x > deep/er.txt")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert sorted(archive.namelist()) == ["deep/er.txt", "manifest.json", "price.txt", "stderr.txt", "stdout.txt"]
    assert archive.read("stdout.txt") == b"priced\n"
    assert archive.read("price.txt") == b"42\n"


async def test_a_wait_is_answered_from_the_leaders_report(grid: SmallGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job store is not read between the insert of a job and the answer with its ZIP.

    The exception is a job that takes so long that its start is reported first, which is looked up: on a busy machine
    any may.
    """
    get, asked = grid.parent.store.get, 0

    async def counted(job_ids: Sequence[str]) -> dict[str, StoredJob]:
        nonlocal asked
        asked += 1
        return await get(job_ids)

    monkeypatch.setattr(grid.parent.store, "get", counted)
    for number in range(50):
        asked = 0
        assert (await grid.submit(f"told-{number}", "echo priced")).status_code == 200
        if asked == 0:
            break
    assert asked == 0
    assert (await grid.status(f"told-{number}"))["state"] == "done"


async def test_the_same_job_id_runs_once(grid: SmallGrid) -> None:
    """Submitting the same jobId with the same input again gives the finished result and runs nothing."""
    script = f"echo ran >> {grid.directory}/runs"
    first = await grid.submit("once", script)
    again = await grid.submit("once", script)
    assert first.headers["etag"] == again.headers["etag"]
    assert (grid.directory / "runs").read_text() == "ran\n"


async def test_the_same_job_id_with_another_input_is_refused(grid: SmallGrid) -> None:
    """Another input under a taken jobId gets 409 and changes nothing."""
    first = await grid.submit("taken", "echo one")
    other = await grid.submit("taken", "echo two")
    assert other.status_code == 409
    assert other.json()["type"] == "urn:raygrid:problem:conflict"
    assert (await grid.submit("taken", "echo one")).headers["etag"] == first.headers["etag"]


async def test_many_submits_of_one_job_at_once_run_it_once(grid: SmallGrid) -> None:
    """Twenty clients that race with one jobId all get the one result."""
    script = f"sleep 0.2; echo ran >> {grid.directory}/runs"
    answers = await asyncio.gather(*(grid.submit("raced", script) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["etag"] for answer in answers}) == 1
    assert (grid.directory / "runs").read_text() == "ran\n"


async def test_a_failed_pricer_is_an_answer(grid: SmallGrid) -> None:
    """A non-zero exit is final: 422 with exit code and stderr, one attempt, and the ZIP on request."""
    answer = await grid.submit("bad", "echo no market data >&2; exit 3")
    assert answer.status_code == 422
    problem = answer.json()
    assert (problem["exit_code"], problem["reason"]) == (3, "exit_code")
    assert "no market data" in problem["stderr_tail"]
    assert (await grid.status("bad"))["attempts"] == 1
    kept = await grid.http.get("/result/bad", params={"even_if": "failed"})
    assert b"no market data" in zipfile.ZipFile(io.BytesIO(kept.content)).read("stderr.txt")
