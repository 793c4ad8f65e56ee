"""Stored results that were damaged or tampered with: no wrong byte leaves the grid, over any route.

Real parents, leaders and nodes; the tests change files in the blob store behind their backs.
"""

from __future__ import annotations

import asyncio
import io
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from raygrid.blobs.chunks import CHUNK
from raygrid.client import AsyncClient, Client
from raygrid.errors import DamagedResultError
from raygrid.models import BlobSlice
from tests.support.http import parts_of, unzip, word
from tests.support.small_grid import PRICERS, SmallGrid

# Nothing stays in a node's cache: the stored copy is the only one.
NO_CACHE: dict[str, Any] = {"node": {"cache": 0}}
BIG = 12 * 1024**2
BIG_SCRIPT = f"echo printed; head -c {BIG} /dev/urandom > big.bin"


def blob_of(grid: SmallGrid, result: BlobSlice) -> Path:
    """The file in which a result lies."""
    return Path(str(grid.settings.blobs_url)) / result.key


async def result_of(grid: SmallGrid, job_id: str) -> BlobSlice:
    """Where the result of a job lies."""
    result = (await grid.store.get([job_id]))[job_id].result
    assert result is not None
    return result


async def overwrite(grid: SmallGrid, job_id: str, data: bytes, at: int = 0) -> None:
    """Write over a job's stored result."""
    result = await result_of(grid, job_id)
    with blob_of(grid, result).open("r+b") as file:
        file.seek(result.offset + at)
        file.write(data)


async def tamper(grid: SmallGrid, job_id: str) -> bytes:
    """Change what a pricer printed, in place, and mend the checksum of the ZIP; gives the new ZIP."""
    result = await result_of(grid, job_id)
    with blob_of(grid, result).open("rb") as file:
        file.seek(result.offset)
        before = file.read(result.size)
    files = unzip(before)
    files["stdout.txt"] = files["stdout.txt"].replace(b"1", b"9")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data, compress_type=zipfile.ZIP_DEFLATED if len(data) > 1024 else 0)
    after = buffer.getvalue()
    assert len(after) == result.size
    assert zipfile.ZipFile(io.BytesIO(after)).testzip() is None
    await overwrite(grid, job_id, after)
    return after


def refused(answer: httpx.Response, job_id: str) -> None:
    """An answer that reports the result as damaged, with the remedy."""
    assert (answer.status_code, word(answer)) == (500, "damaged-result")
    assert f"stored result of job {job_id} is damaged" in answer.json()["detail"]
    assert "under a new jobId to run it again" in answer.json()["detail"]
    assert answer.headers["Raygrid-Job-Id"] == job_id


async def test_a_result_that_was_tampered_with_is_never_given_out(tmp_path: Path) -> None:
    """A byte is changed and the ZIP's checksum adapted: result, repeated submit and the batch's stream refuse it."""
    async with SmallGrid(tmp_path, **NO_CACHE) as grid:
        files = {name: (name, b"echo price 11") for name in ("a", "c")}
        await grid.http.post("/batches", data={"batchId": "b", "pricer": "shell"}, files=files)
        await grid.until_state("a", "done")
        await grid.until_state("c", "done")
        await tamper(grid, "a")

        refused(await grid.http.get("/result/a"), "a")
        refused(await grid.submit("a", "echo price 11", filename="a"), "a")
        parts, complete = parts_of(await grid.http.get("/batches/b/results", params={"wait": 10}))
        assert complete
        by_id = {part.job_id: part for part in parts}
        assert (by_id["a"].body, by_id["a"].problem) == (b"", "urn:raygrid:problem:damaged-result")
        assert unzip(by_id["c"].body)["stdout.txt"] == b"price 11\n"
        assert unzip(await grid.http.get("/result/c"))["stdout.txt"] == b"price 11\n"


async def test_an_answer_that_is_plain_stdout_is_checked_as_well(tmp_path: Path) -> None:
    """A pricer whose stdout is the answer: the changed price is not printed."""
    async with SmallGrid(tmp_path, **NO_CACHE) as grid:
        assert (await grid.submit("a", "price 11", pricer="cat")).content == b"price 11"
        await tamper(grid, "a")
        refused(await grid.submit("a", "price 11", pricer="cat"), "a")


async def test_the_python_client_gets_an_error_of_its_own_class(tmp_path: Path) -> None:
    """From a result, from a download, and in the place of one job of a batch; the others come."""
    async with SmallGrid(tmp_path, **NO_CACHE) as grid, AsyncClient(grid.url) as client:
        batch = await client.map({"a": b"echo 11", "c": b"echo 12"}, pricer="shell")
        assert [result.stdout async for result in batch.results()] == ["11\n", "12\n"]
        await tamper(grid, "a")

        for fetch in (client.job("a").result, lambda: client.job("a").download(tmp_path / "a.zip")):
            with pytest.raises(DamagedResultError, match=r"job a is damaged.*new jobId"):
                await fetch()
        assert not (tmp_path / "a.zip").exists()
        again = await client.batch(batch.batch_id)
        ended = {job.job_id: job.ending async for job in again.as_completed(30) if job.ending is not None}
        assert isinstance(ended["a"].error, DamagedResultError)
        assert ended["c"].get().stdout == "12\n"


async def test_swapped_and_truncated_results_are_refused(tmp_path: Path) -> None:
    """Two jobs' results changed places in the blob store, and a blob that lost its end."""
    async with SmallGrid(tmp_path, **NO_CACHE) as grid:
        bodies = {job_id: (await grid.submit(job_id, "echo " + job_id)).content for job_id in ("a", "b", "c")}
        for job_id, other in (("a", "b"), ("b", "a")):
            room = len(bodies[job_id])
            await overwrite(grid, job_id, bodies[other][:room].ljust(room, b"\0"))
        result = await result_of(grid, "c")
        with blob_of(grid, result).open("r+b") as file:
            file.truncate(result.offset + result.size - 1)
        for job_id in bodies:
            refused(await grid.http.get(f"/result/{job_id}"), job_id)


async def test_the_nodes_copy_is_given_if_the_stored_one_is_damaged(tmp_path: Path) -> None:
    """As long as the result is in its node's cache nothing is lost, and nothing wrong is given."""
    async with SmallGrid(tmp_path) as grid:
        right = (await grid.submit("a", "echo 11")).content
        await tamper(grid, "a")
        again = await grid.http.get("/result/a")
        assert (again.status_code, again.content) == (200, right)

        await grid.restart_node("rack-a-1")
        await grid.deploy()  # the parent reaches the node's new life, whose cache is empty
        refused(await grid.http.get("/result/a"), "a")


async def test_a_large_result_that_is_damaged_in_the_middle_breaks_off_and_is_refused_afterwards(
    tmp_path: Path,
) -> None:
    """The first answer cannot change its status: it stops short of the damaged chunk; the next one is a problem."""
    async with SmallGrid(tmp_path) as grid:
        await grid.submit("a", BIG_SCRIPT)
        result = await result_of(grid, "a")
        assert len(await grid.store.result_chunks("a") or b"") == 32 * -(-result.size // CHUNK)
        whole = (await grid.http.get("/result/a")).content
        assert len(unzip(whole)["big.bin"]) == BIG
        await overwrite(grid, "a", b"tampered", at=6 * CHUNK + 100)

        came = await until_it_breaks(grid, "/result/a")
        assert came == whole[: len(came)]
        assert len(came) <= 6 * CHUNK
        refused(await grid.http.get("/result/a"), "a")


async def until_it_breaks(grid: SmallGrid, path: str) -> bytes:
    """What arrives of an answer that does not arrive whole."""
    came = bytearray()
    try:
        async with grid.http.stream("GET", path) as answer:
            async for chunk in answer.aiter_raw():
                came += chunk
    except httpx.RemoteProtocolError:
        return bytes(came)
    raise AssertionError("the answer ended as if it were whole")


async def test_a_client_finds_a_large_damaged_result_by_itself(tmp_path: Path) -> None:
    """It tries the broken download again, gets the problem, and leaves no file; a batch's stream goes on behind it."""
    async with SmallGrid(tmp_path) as grid:

        def work() -> dict[str, Any]:
            with Client(grid.url) as client:
                with pytest.raises(DamagedResultError, match="job a is damaged"):
                    client.job("a").download(tmp_path / "a.zip")
                ended = {job.job_id: job.ending for job in client.batch("b").as_completed(60)}
                return {job_id: type(ending.error).__name__ for job_id, ending in ended.items() if ending is not None}

        for job_id, script in (("a", BIG_SCRIPT), ("c", "echo 12")):
            files = {job_id: ("job.sh", script.encode())}
            await grid.http.post("/batches", data={"batchId": "b", "pricer": "shell"}, files=files)
            await grid.until_state(job_id, "done")
        await overwrite(grid, "a", b"tampered", at=6 * CHUNK + 100)
        assert await asyncio.to_thread(work) == {"a": "DamagedResultError", "c": "NoneType"}
        assert not list(tmp_path.glob("*a.zip*"))


async def test_a_large_result_of_an_earlier_release_is_read_through_before_it_is_given(tmp_path: Path) -> None:
    """Without digests of chunks: intact it comes whole, damaged it is refused before any byte."""
    async with SmallGrid(tmp_path) as grid:
        await grid.submit("a", BIG_SCRIPT)
        await forget_chunks(grid)
        assert len(unzip(await grid.http.get("/result/a"))["big.bin"]) == BIG
        await overwrite(grid, "a", b"tampered", at=BIG)
        await grid.deploy()  # a parent that has not seen it
        refused(await grid.http.get("/result/a"), "a")


async def forget_chunks(grid: SmallGrid) -> None:
    """Let all results be as an earlier release left them."""
    async with grid.store.database.write() as connection:
        await connection.exec_driver_sql("UPDATE jobs SET result_chunks = NULL")


async def test_a_result_that_was_found_damaged_is_not_reused(tmp_path: Path) -> None:
    """After the damage was found, an equal job under a new id runs again."""
    pricers = {**PRICERS, "reused": {"command": ["sh", "{input}"], "reuse": "content"}}
    async with SmallGrid(tmp_path, pricers=pricers, **NO_CACHE) as grid:
        await grid.submit("a", "echo 11", pricer="reused")
        taken = await grid.submit("b", "echo 11", pricer="reused")
        assert taken.headers["Raygrid-Reused-From"] == "a"
        await tamper(grid, "a")
        refused(await grid.http.get("/result/b"), "b")

        fresh = await grid.submit("c", "echo 11", pricer="reused")
        assert (fresh.status_code, fresh.headers.get("Raygrid-Reused-From")) == (200, None)
        assert unzip(fresh)["stdout.txt"] == b"11\n"
        later = await grid.submit("d", "echo 11", pricer="reused")
        assert later.headers["Raygrid-Reused-From"] == "c"
        refused(await grid.http.get("/result/a"), "a")
