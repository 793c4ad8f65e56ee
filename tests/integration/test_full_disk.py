"""A full disk: a node's jobs run elsewhere, it is shown with the reason, and works again once there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from raygrid.node.workspace import DISK_RESERVE
from tests.support.http import manifest, unzip
from tests.support.small_grid import SmallGrid

MB = 1024**2
ROOM = 16 * MB  # beyond what makes a node refuse work


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own for the node rack-a-1."""
    place = tmp_path / "grid" / "small" / "nodes" / "rack-a-1"
    place.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_RESERVE + ROOM}", "raygrid-test", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk; run as root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def node(grid: SmallGrid) -> dict[str, Any]:
    nodes = (await grid.http.get("/nodes")).json()["nodes"]
    return next(each for each in nodes if each["node"] == "rack-a-1")


@pytest.mark.parametrize("otherwise", ["exit 3", "exit 0"], ids=["fails", "does-not-notice"])
async def test_a_pricer_that_finds_the_disk_full_runs_elsewhere(
    tmp_path: Path, small_disk: Path, otherwise: str
) -> None:
    """The exit code of a pricer that could not write its files is no answer of the job, be it zero or not."""
    gate = tmp_path / "gate"
    placement = {"policy": "weighted_round_robin", "weights": {"rack-a-1": 1000.0}}
    async with SmallGrid(tmp_path / "grid", nodes=2, slots=1, placement=placement) as grid:
        script = f"while [ ! -e {gate} ]; do sleep 0.02; done; echo right > out || {otherwise}"
        await grid.submit("unlucky", script, wait=0)
        assert (await grid.until_state("unlucky", "running"))["node"] == "rack-a-1"

        async def has_begun() -> bool:
            return any(each.name == "job.sh" for each in small_disk.rglob("*"))

        await grid.until(has_begun)
        with suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
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
