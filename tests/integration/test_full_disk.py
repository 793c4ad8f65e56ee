"""A full disk: a node's jobs run elsewhere, it is shown with the reason, and works again once there is room."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from raygrid.errors import UnavailableError
from raygrid.node.attempt.workspace import DISK_RESERVE
from raygrid.parent import store_check
from raygrid.store import SqlStore
from tests.support.http import manifest, unzip
from tests.support.small_disk import fill, free, mounted
from tests.support.small_grid import SmallGrid

MB = 1024**2
ROOM = 16 * MB  # beyond what makes a node refuse work


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own for the node rack-a-1."""
    with mounted(tmp_path / "grid" / "small" / "nodes" / "rack-a-1", DISK_RESERVE + ROOM) as place:
        yield place


async def node(grid: SmallGrid) -> dict[str, Any]:
    nodes = (await grid.http.get("/nodes")).json()["nodes"]
    return next(each for each in nodes if each["node"] == "rack-a-1")


@pytest.mark.parametrize("otherwise", ["exit 3", "exit 0"], ids=["fails", "does-not-notice"])
async def test_a_pricer_that_finds_the_disk_full_runs_elsewhere(
    tmp_path: Path, small_disk: Path, otherwise: str
) -> None:
    """The exit code of a pricer that could not write its files is no answer of the job, whether it is zero or not."""
    gate = tmp_path / "gate"
    placement = {"policy": "weighted_round_robin", "weights": {"rack-a-1": 1000.0}}
    async with SmallGrid(tmp_path / "grid", nodes=2, slots=1, placement=placement) as grid:
        script = f"while [ ! -e {gate} ]; do sleep 0.02; done; echo right > out || {otherwise}"
        await grid.submit("unlucky", script, wait=0)
        assert (await grid.until_state("unlucky", "running"))["node"] == "rack-a-1"

        async def has_begun() -> bool:
            return any(each.name == "job.sh" for each in small_disk.rglob("*"))

        await grid.until(has_begun)
        fill(small_disk)
        gate.touch()
        await grid.until_state("unlucky", "done", "failed")
        answer = await grid.http.get("/result/unlucky")
        assert answer.status_code == 200, answer.text
        assert (manifest(answer)["node"], manifest(answer)["attempt"]) == ("rack-a-2", 2)
        assert unzip(answer)["out"] == b"right\n"


async def test_a_full_node_is_shown_and_works_again_with_room(tmp_path: Path, small_disk: Path) -> None:
    """While its disk is full jobs go to the other node; with room again it gets work."""
    async with SmallGrid(tmp_path / "grid", nodes=2, slots=1) as grid:
        ballast = small_disk / "ballast"
        ballast.write_bytes(bytes(ROOM + MB))

        async def is_unhealthy() -> bool:
            return bool((await node(grid))["state"] == "unhealthy")

        await grid.until(is_unhealthy, within_s=10)
        assert "its disk is nearly full" in (await node(grid))["why"]
        answers = [await grid.submit(f"away-{number}", "echo x") for number in range(4)]
        assert {manifest(answer)["node"] for answer in answers} == {"rack-a-2"}
        ballast.unlink()

        async def is_ok() -> bool:
            return bool((await node(grid))["state"] == "ok")

        await grid.until(is_ok, within_s=10)
        await grid.submit("holds-2", "sleep 1000", wait=0)
        await grid.submit("holds-1", "sleep 1000", wait=0)
        states = [await grid.until_state(f"holds-{number}", "running") for number in (1, 2)]
        assert {state["node"] for state in states} == {"rack-a-1", "rack-a-2"}


# --- the job store --------------------------------------------------------------------------------------------------


async def health(grid: SmallGrid) -> tuple[int, str]:
    answer = await grid.http.get("/health/ready")
    return answer.status_code, answer.text


async def test_a_job_store_without_a_disk_that_has_room_cannot_be_written(tmp_path: Path) -> None:
    """Whether there is no room left, or hardly any, the error has the path; once there is room, all is well."""
    with mounted(tmp_path / "store", 64 * MB) as place:
        store = SqlStore(f"sqlite+aiosqlite:///{place / 'jobs.db'}")
        await store.open()
        await store.probe()
        for size in (52 * MB, 64 * MB):
            with suppress(OSError), (place / "ballast").open("wb", buffering=0) as ballast:
                for _ in range(size // MB):
                    ballast.write(bytes(MB))
            with pytest.raises(UnavailableError, match=r"jobs\.db is full \(\d+ MB are free\); free some space"):
                await store.probe()
        (place / "ballast").unlink()
        await store.probe()
        await store.close()


async def test_a_parent_whose_job_store_was_removed_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reports the reason, takes no job that would be lost, and is ready again when the file is back."""
    monkeypatch.setattr(store_check, "FRESH_S", 0.1)
    monkeypatch.setattr(store_check, "AGAIN_S", 0.1)
    async with SmallGrid(tmp_path / "grid") as grid:
        assert (await health(grid))[0] == 200
        path, aside = tmp_path / "grid" / "small" / "jobs.db", tmp_path / "aside"
        path.rename(aside)

        async def not_ready() -> bool:
            return (await health(grid))[0] == 503

        await grid.until(not_ready, within_s=5)
        assert "jobs.db was removed or replaced while the grid runs: put it back" in (await health(grid))[1]
        assert (await grid.submit("lost", "true", wait=0)).status_code == 503
        aside.rename(path)

        async def is_ready() -> bool:
            return (await health(grid))[0] == 200

        await grid.until(is_ready, within_s=5)
        assert (await grid.submit("found", "true")).status_code == 200


# --- an attempt that fills the disk ---------------------------------------------------------------------------------


@pytest.fixture
def shared_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk that all nodes of the grid share, with room for large results."""
    with mounted(tmp_path / "grid" / "small" / "nodes", DISK_RESERVE + 96 * MB) as place:
        yield place


def twice(tmp_path: Path, first: str) -> str:
    """A job that waits for a gate in its first attempt, and then does this; in the next one it is right."""
    again, gate = tmp_path / "again", tmp_path / "gate"
    waits = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    return f"if [ -e {again} ]; then echo right > out; exit 0; fi; touch {again}; {waits}; {first}"


async def until_there(grid: SmallGrid, path: Path) -> None:
    async def is_there() -> bool:
        return path.exists()

    await grid.until(is_there)


def charged(grid: SmallGrid, job_id: str) -> int:
    """How many attempts of a job counted towards its limit."""
    with closing(sqlite3.connect(grid.directory / "small" / "jobs.db")) as store:
        [(failures,)] = store.execute("SELECT failures FROM jobs WHERE job_id = ?", (job_id,))
    return int(failures)


async def assert_fills(grid: SmallGrid, script: str) -> None:
    """A job fails as `output_limit` in its first attempt; nothing of what it wrote is kept."""
    answer = await grid.submit("filler", script)
    assert (answer.status_code, answer.json()["reason"]) == (422, "output_limit"), answer.text
    assert "filling the disk" in answer.json()["detail"]
    assert (await grid.status("filler"))["attempts"] == 1
    kept = unzip(await grid.http.get("/result/filler?even_if=failed"))
    assert sorted(kept) == ["manifest.json", "stderr.txt", "stdout.txt"]
    assert sum(map(len, kept.values())) < 100_000


@pytest.mark.parametrize(
    "fills",
    ["cat /dev/zero > all; sleep 1000", "cat /dev/zero > all", "cat /dev/zero > all; true", "cat /dev/zero"],
    ids=["stays", "fails", "does-not-notice", "prints"],
)
async def test_the_job_that_fills_the_disk_fails_and_its_neighbour_runs_again(
    tmp_path: Path, small_disk: Path, fills: str
) -> None:
    """The failure is final; the neighbour's attempt does not count."""
    async with SmallGrid(tmp_path / "grid", nodes=1, slots=2) as grid:
        await grid.submit("beside", twice(tmp_path, "exit 3"), wait=0)
        await until_there(grid, tmp_path / "again")
        await assert_fills(grid, fills)
        (tmp_path / "gate").touch()
        await grid.until_state("beside", "done", "failed")
        answer = await grid.http.get("/result/beside")
        assert answer.status_code == 200, answer.text
        assert unzip(answer)["out"] == b"right\n"
        assert ((await grid.status("beside"))["attempts"], charged(grid, "beside")) == (2, 0)
        assert free(small_disk) > DISK_RESERVE


async def test_a_success_while_the_disk_was_full_is_no_answer(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that exits with 0 may have ignored a failed write, even if there is room again by then."""
    monkeypatch.setattr("raygrid.node.limits.disk.TICK_S", 1000)  # so that the filler always comes to the last byte
    async with SmallGrid(tmp_path / "grid", nodes=1, slots=2) as grid:
        await grid.submit("beside", twice(tmp_path, "exit 0"), wait=0)
        await until_there(grid, tmp_path / "again")
        await assert_fills(grid, "cat /dev/zero > all")
        (tmp_path / "gate").touch()
        await grid.until_state("beside", "done", "failed")
        assert unzip(await grid.http.get("/result/beside"))["out"] == b"right\n"
        assert ((await grid.status("beside"))["attempts"], charged(grid, "beside")) == (2, 0)


async def test_agents_that_share_a_disk_end_the_one_job_that_fills_it(tmp_path: Path, shared_disk: Path) -> None:
    """A job of another node with a large result of its own is left alone."""
    large = f"head -c {40 * MB} /dev/zero > all; touch {tmp_path}/written; sleep 1000"
    async with SmallGrid(tmp_path / "grid", nodes=2, slots=1) as grid:
        await grid.submit("large", large, wait=0)
        await until_there(grid, tmp_path / "written")
        await assert_fills(grid, "cat /dev/zero > all; sleep 1000")
        assert (await grid.status("filler"))["node"] != (await grid.status("large"))["node"]
        assert (await grid.status("large"))["state"] == "running"
        assert free(shared_disk) > DISK_RESERVE


async def test_a_result_that_does_not_fit_on_the_disk_is_too_large(tmp_path: Path, small_disk: Path) -> None:
    """A pricer that leaves room, but not for its ZIP, has written too much for this disk."""
    async with SmallGrid(tmp_path / "grid", nodes=1, slots=1) as grid:
        await assert_fills(grid, f"head -c {55 * MB} /dev/urandom > all")
