"""A grid and its blob store: a shared directory, or S3 over real HTTP; machines that see another one, and outages."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from raygrid.blobs import BlobStore
from raygrid.errors import UnavailableError
from raygrid.parent.blob_check import BlobCheck
from raygrid.parent.housekeeping import Housekeeping
from raygrid.store import BLOBS
from tests.support.http import parts_of, unzip
from tests.support.s3 import S3, SECRETS, Cable, s3_server
from tests.support.small_grid import SmallGrid


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


def on_s3(s3: S3, port: int | None = None) -> dict[str, Any]:
    return {"storage": {"blobs": f"s3://{s3.new_bucket()}/grid", "blob_options": s3.options(port), "inline": 1024}}


async def run_batch(grid: SmallGrid, batch_id: str, scripts: dict[str, str]) -> dict[str, bytes]:
    """Submit a batch and read its results stream to the end; gives each job's ZIP."""
    files = {name: (f"{name}.sh", script.encode()) for name, script in scripts.items()}
    answer = await grid.http.post("/batches", files=files, data={"batchId": batch_id, "pricer": "shell"})
    assert answer.status_code == 202, answer.text
    bodies: dict[str, bytes] = {}
    cursor, complete = 0, False
    while not complete:
        stream = await grid.http.get(f"/batches/{batch_id}/results", params={"cursor": cursor, "wait": 30})
        parts, complete = parts_of(stream)
        bodies |= {part.job_id: part.body for part in parts}
        assert complete or parts, await stuck(grid, [name for name in scripts if name not in bodies])
        cursor = max([cursor, *(part.cursor for part in parts)])
    return bodies


async def stuck(grid: SmallGrid, job_ids: list[str]) -> str:
    """The state of jobs that do not end in the store, at the leader and on the nodes."""
    stored = [
        (job.job_id, job.state.value, job.node_id, job.attempts) for job in (await grid.store.get(job_ids)).values()
    ]
    state = grid.leaders["rack-a"].leader._state
    entries = {job_id: state._jobs.get(job_id) for job_id in job_ids[:3]}
    held = {name: dict(list(record.held.items())[:5]) for name, record in state.nodes.items()}
    agents = {name: each.agent._state().why for name, each in grid.nodes.items()}
    return f"{stored[:5]=} {entries=} {held=} {agents=} {state._backlog.__dict__=} {job_ids[0] in state._ended=}"


async def node(grid: SmallGrid, name: str) -> dict[str, Any]:
    found = (await grid.http.get("/nodes")).json()["nodes"]
    return next(each for each in found if each["node"] == name)


async def until_node(grid: SmallGrid, name: str, state: str, within_s: float = 20.0) -> dict[str, Any]:
    async def reached() -> bool:
        return bool((await node(grid, name))["state"] == state)

    await grid.until(reached, within_s)
    return await node(grid, name)


def ran_on(body: bytes) -> str:
    name: str = json.loads(unzip(body)["manifest.json"])["node"]
    return name


# --- S3 -------------------------------------------------------------------------------------------------------------


async def test_a_batch_runs_on_s3(tmp_path: Path, s3: S3) -> None:
    """500 jobs, some with inputs and results too large for a pack, all end as done with their own bytes."""
    padding = "# " + "x" * 2_000 + "\n"  # so that every second input travels through the blob store
    scripts = {f"job-{n}": (padding if n % 2 else "") + f"echo price {n}" for n in range(500)}
    scripts["job-7"] = "head -c 9000000 /dev/zero > big; echo price 7"
    async with SmallGrid(tmp_path, nodes=2, slots=2, **on_s3(s3)) as grid:
        bodies = await run_batch(grid, "b", scripts)
        assert {name: unzip(body)["stdout.txt"] for name, body in bodies.items()} == {
            f"job-{n}": f"price {n}\n".encode() for n in range(500)
        }
        assert unzip(bodies["job-7"])["big"] == bytes(9_000_000)
        for name in ("job-7", "job-8", "job-9"):
            assert (await grid.http.get(f"/result/{name}")).content == bodies[name]
            job = (await grid.store.get([name]))[name]
            assert job.result is not None
            assert await grid.blobs.read(job.result) == bodies[name]
    assert not (grid.settings.grid_dir / "blobs").exists()


async def test_credentials_do_not_reach_pricers(tmp_path: Path, s3: S3) -> None:
    """A pricer's environment holds nothing of what opens the blob store, though its agent's does."""
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRETS["AWS_SECRET_ACCESS_KEY"]
    async with SmallGrid(tmp_path, **on_s3(s3)) as grid:
        printed = unzip(await grid.submit("env", "env"))["stdout.txt"].decode()
    assert "RAYGRID_JOB_ID=env" in printed
    assert "AWS_" not in printed
    assert SECRETS["AWS_SECRET_ACCESS_KEY"] not in printed


async def test_an_outage_of_s3_loses_nothing(tmp_path: Path, s3: S3) -> None:
    """Jobs that end while S3 is away are kept or run again; uploads get 503 meanwhile; all is done afterwards."""
    cable = Cable(s3.port)
    async with SmallGrid(tmp_path, nodes=2, slots=2, **on_s3(s3, cable.port)) as grid:
        scripts = {f"job-{n}": f"sleep 0.{n % 10}; echo price {n}" for n in range(60)}
        running = asyncio.create_task(run_batch(grid, "b", scripts))

        async def some_done() -> bool:
            answer = await grid.http.get("/batches/b")
            return answer.status_code == 200 and answer.json()["counts"]["done"] >= 5

        await grid.until(some_done)
        cable.cut()
        for name in grid.nodes:
            assert "blob store" in (await until_node(grid, name, "unhealthy", 40))["why"]
        refused = await grid.submit("large", "# " + "x" * 100_000)
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:raygrid:problem:unavailable")
        assert int(refused.headers["Retry-After"]) >= 1
        assert "cannot be used now" in refused.json()["detail"]
        accepted = await grid.submit("small", "echo later", wait=0)
        assert accepted.status_code == 202
        cable.mend()
        bodies = await running
        assert {name: unzip(body)["stdout.txt"] for name, body in bodies.items()} == {
            f"job-{n}": f"price {n}\n".encode() for n in range(60)
        }
        assert (await grid.until_state("small", "done"))["state"] == "done"
        for name in grid.nodes:
            await until_node(grid, name, "ok")
    cable.close()


async def test_results_are_unavailable_not_gone_while_s3_is_away(tmp_path: Path, s3: S3) -> None:
    """A request for a result during an outage gets 503 with Retry-After, not 410."""
    cable = Cable(s3.port)
    async with SmallGrid(tmp_path, **on_s3(s3, cable.port), node={"cache": 0}) as grid:
        first = await grid.submit("job", "echo kept")
        cable.cut()
        answer = await grid.http.get("/result/job")
        assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        cable.mend()
        assert (await grid.http.get("/result/job")).content == first.content
    cable.close()


# --- shared directories ---------------------------------------------------------------------------------------------


async def test_a_node_that_sees_another_directory_gets_no_work_until_it_sees_the_right_one(tmp_path: Path) -> None:
    """All jobs run on the node that sees the grid's blob store; the other shows the reason, and joins once it does."""
    share, local = tmp_path / "share", tmp_path / "local"
    local.mkdir()
    (tmp_path / "mount").symlink_to(local)
    settings: dict[str, Any] = {"storage": {"blobs": str(share)}}
    async with SmallGrid(tmp_path, nodes=2, node_blobs={"rack-a-2": str(tmp_path / "mount")}, **settings) as grid:
        why = (await until_node(grid, "rack-a-2", "unhealthy"))["why"]
        assert "does not see the grid's blob store" in why
        assert f"no marker at {tmp_path}/mount (is the share mounted there?)" in why
        bodies = await run_batch(grid, "b", {f"job-{n}": "sleep 0.05" for n in range(20)})
        assert {ran_on(body) for body in bodies.values()} == {"rack-a-1"}
        assert list(local.iterdir()) == []

        (tmp_path / "new").symlink_to(share)
        (tmp_path / "new").rename(tmp_path / "mount")
        await until_node(grid, "rack-a-2", "ok", within_s=5)
        bodies = await run_batch(grid, "c", {f"then-{n}": "sleep 0.2" for n in range(8)})
        assert {ran_on(body) for body in bodies.values()} == {"rack-a-1", "rack-a-2"}


async def test_a_node_with_the_marker_of_another_grid_gets_no_work(tmp_path: Path) -> None:
    """The reason names a blob store that another grid has marked."""
    other = tmp_path / "other" / "grid"
    other.mkdir(parents=True)
    (other / "marker").write_text("of-another-grid\n")
    async with SmallGrid(tmp_path, nodes=2, node_blobs={"rack-a-1": str(other.parent)}) as grid:
        why = (await until_node(grid, "rack-a-1", "unhealthy"))["why"]
        assert "another blob store, not the grid's" in why
        assert "of-another-grid" in why
        assert ran_on((await grid.submit("job", "echo x")).content) == "rack-a-2"


async def test_a_job_that_ends_after_the_share_went_away_runs_elsewhere(tmp_path: Path) -> None:
    """A result is never left below the share's mount point: its job runs again on a node that sees the blob store."""
    share, below = tmp_path / "share", tmp_path / "below"
    share.mkdir()
    below.mkdir()
    mount = tmp_path / "mount"
    mount.symlink_to(share)
    go, ran = tmp_path / "go", tmp_path / "ran"
    script = f"echo x >> {ran}; while [ ! -e {go} ]; do sleep 0.02; done; echo price"
    settings: dict[str, Any] = {"storage": {"blobs": str(share)}}
    async with SmallGrid(
        tmp_path, nodes=2, node_blobs={"rack-a-2": str(mount)}, placement={"weights": {"rack-a-2": 1.0}}, **settings
    ) as grid:
        await until_node(grid, "rack-a-2", "ok")
        submits = [asyncio.create_task(grid.submit(f"job-{n}", script)) for n in range(4)]

        async def all_started() -> bool:
            return ran.exists() and len(ran.read_text().split()) == 4

        await grid.until(all_started)
        (tmp_path / "new").symlink_to(below)
        (tmp_path / "new").rename(mount)
        go.touch()
        bodies = [(await each).content for each in submits]
        assert {ran_on(body) for body in bodies} == {"rack-a-1"}
        assert {unzip(body)["stdout.txt"] for body in bodies} == {b"price\n"}
        assert list(below.iterdir()) == []
        assert len(ran.read_text().split()) == 6


# --- parents --------------------------------------------------------------------------------------------------------


@pytest.fixture
def many_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job store that many machines could share."""
    monkeypatch.setattr("raygrid.store.SqlStore.is_single_machine", False)


@pytest.mark.usefixtures("many_machines")
async def test_a_parent_without_the_share_takes_no_jobs_and_recovers(tmp_path: Path) -> None:
    """The reason is under /health/ready and in the answer to every submit; it goes on once the share is mounted."""
    share, below, mount = tmp_path / "share", tmp_path / "below", tmp_path / "mount"
    share.mkdir()
    below.mkdir()
    mount.symlink_to(share)
    async with SmallGrid(tmp_path, storage={"blobs": str(mount)}, node_blobs={"rack-a-1": str(share)}) as grid:
        assert (await grid.submit("before", "echo x")).status_code == 200
        (tmp_path / "new").symlink_to(below)
        (tmp_path / "new").rename(mount)

        async def not_ready() -> bool:
            return (await grid.http.get("/health/ready")).status_code == 503

        large = await grid.submit("large", "# " + "x" * 100_000)  # at once, before the parent has looked again
        await grid.until(not_ready)
        answers: list[httpx.Response] = [
            await grid.http.get("/health/ready"),
            await grid.submit("inline", "echo x"),
            await grid.http.put("/data/curve", content=b"x"),
            await grid.http.post("/batches", files={"job": b"echo x"}, data={"pricer": "shell"}),
        ]
        for answer in (large, *answers):
            assert answer.status_code == 503
            assert "Retry-After" in answer.headers
            assert "is the share mounted there" in answer.json()["detail"]
        assert (await grid.http.get("/status/before")).json()["state"] == "done"
        assert list(below.iterdir()) == []

        (tmp_path / "new").symlink_to(share)
        (tmp_path / "new").rename(mount)

        async def ready() -> bool:
            return (await grid.http.get("/health/ready")).status_code == 200

        await grid.until(ready, within_s=5)
        assert (await grid.submit("large", "# " + "x" * 100_000)).status_code == 200


@pytest.mark.usefixtures("many_machines")
async def test_housekeeping_leaves_the_blobs_of_another_grid_alone(tmp_path: Path) -> None:
    """A parent that sees another grid's blob store neither marks jobs as purged nor removes unknown blobs."""
    share, mount = tmp_path / "share", tmp_path / "mount"
    share.mkdir()
    mount.symlink_to(share)
    theirs = tmp_path / "theirs" / "results" / "2020-01-01" / "pack"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    os.utime(theirs, (0, 0))
    (tmp_path / "theirs" / "grid").mkdir()
    (tmp_path / "theirs" / "grid" / "marker").write_text("of-another-grid\n")
    async with SmallGrid(tmp_path, storage={"blobs": str(mount)}, node_blobs={"rack-a-1": str(share)}) as grid:
        assert (await grid.submit("kept", "echo x")).status_code == 200
        (tmp_path / "new").symlink_to(tmp_path / "theirs")
        (tmp_path / "new").rename(mount)
        housekeeping = Housekeeping(grid.store, grid.blobs, timedelta(0), 3600)
        for round_of in (housekeeping.purge, housekeeping.sweep):
            with pytest.raises(UnavailableError, match="another blob store"):
                await round_of()
        assert theirs.exists()
        assert (await grid.store.get(["kept"]))["kept"].purged_at is None


@pytest.mark.usefixtures("many_machines")
async def test_a_second_parent_with_another_blob_store_is_refused(tmp_path: Path) -> None:
    """The first parent's proposal stays; a parent elsewhere does not leave a marker of its own as the grid's."""
    async with SmallGrid(tmp_path, storage={"blobs": str(tmp_path / "one")}) as grid:
        agreed = await grid.store.agreed(BLOBS)
        (tmp_path / "two").mkdir()
        check = BlobCheck(grid.store, BlobStore(str(tmp_path / "two")), is_default=False)
        await check.open()
        with pytest.raises(UnavailableError, match=f"no marker at {tmp_path}/two .*write {agreed} to grid/marker"):
            check.require()
        await check.close()
        assert list((tmp_path / "two").iterdir()) == []
        assert await grid.store.agreed(BLOBS) == agreed


async def test_an_emptied_blob_directory_of_one_machine_is_made_anew(tmp_path: Path) -> None:
    """A laptop whose blob directory was cleared has a grid that works all the same."""
    async with SmallGrid(tmp_path) as grid:
        assert (await grid.submit("before", "echo x")).status_code == 200
        blobs = grid.settings.grid_dir / "blobs"
        blobs.rename(tmp_path / "cleared")

        async def marked() -> bool:
            return (blobs / "grid" / "marker").exists()

        await grid.until(marked)
        await until_node(grid, "rack-a-1", "ok")
        assert (await grid.submit("after", "# " + "x" * 100_000)).status_code == 200
