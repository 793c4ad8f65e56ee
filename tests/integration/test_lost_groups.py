"""Groups that are lost, or have no node: their jobs run elsewhere, with one visible result."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest

from tests.support.rack_grid import CutStore, RackGrid

pytestmark = pytest.mark.leases


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[RackGrid]:
    async with RackGrid(tmp_path, racks=3, nodes=2) as grid:
        yield grid


async def submit(grid: RackGrid, count: int, script: str, prefix: str = "j") -> list[str]:
    names = [f"{prefix}-{number:03}" for number in range(count)]
    for name in names:
        response = await grid.submit(name, script, wait=0)
        assert response.status_code in (200, 202), response.text  # a short job may be done before the answer is made
    return names


async def ended(grid: RackGrid, names: list[str], within_s: float) -> list[dict[str, object]]:
    async def all_over() -> bool:
        jobs = await grid.store.get(names)
        return all(job.state.is_terminal for job in jobs.values())

    await grid.until(all_over, within_s)
    return [await grid.status(name) for name in names]


async def printed(grid: RackGrid, job_id: str) -> bytes:
    answer = await grid.http.get(f"/result/{job_id}")
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        return archive.read("stdout.txt")


async def of_rack(grid: RackGrid, group_id: str, names: list[str]) -> list[str]:
    jobs = await grid.store.get(names)
    return [name for name in names if jobs[name].group_id == group_id]


async def test_a_cut_rack_loses_no_job(grid: RackGrid) -> None:
    """Under load a rack's switch is cut: within 8 s its jobs run elsewhere, and each ends once with its result."""
    names = [f"j-{number:03}" for number in range(36)]
    parts = [(name, ("job.sh", b"sleep 1; head -c 16 /dev/urandom | od -x")) for name in names]
    answer = await grid.http.post("/batches", files=parts, data={"pricer": "shell"})
    assert answer.status_code == 202, answer.text
    await grid.until(lambda: runs_on(grid, "rack-b"), 10)
    grid.cut_rack("rack-b")
    jobs = await grid.store.get(names)
    theirs = [name for name, job in jobs.items() if job.group_id == "rack-b" and not job.state.is_terminal]
    assert len(theirs) > 4
    cut_at = asyncio.get_running_loop().time()

    async def one_moved_and_done() -> bool:
        jobs = (await grid.store.get(theirs)).values()
        return any(job.state == "done" and job.group_id != "rack-b" for job in jobs)

    await grid.until(one_moved_and_done, 15)
    recovery_s = asyncio.get_running_loop().time() - cut_at
    print(f"recovery {recovery_s:.2f} s")
    assert recovery_s < 8
    answers = await ended(grid, names, 30)
    assert {answer["state"] for answer in answers} == {"done"}
    seen = {name: await printed(grid, name) for name in names}
    # The rack comes back, with what its nodes ran meanwhile: no visible result changes.
    grid.cut_rack("rack-b", cut=False)
    again = await submit(grid, 6, "echo again", prefix="again")
    assert {answer["state"] for answer in await ended(grid, again, 30)} == {"done"}
    await grid.until(lambda: nothing_runs(grid), 20)
    assert {name: await printed(grid, name) for name in names} == seen
    assert [await grid.status(name) for name in names] == answers


async def nothing_runs(grid: RackGrid) -> bool:
    return not any(grid.running(group_id) for group_id in grid.leaders)


async def test_an_attempt_that_a_healed_rack_still_runs_is_stopped(grid: RackGrid) -> None:
    """A long job that was moved away is stopped where it ran first, once its rack is back; its one result stays."""
    marks = grid.directory / "marks"
    marks.mkdir()
    # The first run would take minutes; another one of the same job is done at once.
    script = f"if mkdir {marks}/first 2>/dev/null; then sleep 300; fi; echo second"
    await submit(grid, 1, script, prefix="long")
    status = await grid.until_state("long-000", "running")
    rack = status["group"]
    await grid.until(lambda: runs_on(grid, rack), 10)
    grid.cut_rack(rack)
    status = await grid.until_state("long-000", "done", within_s=15)
    assert status["group"] != rack
    assert grid.running(rack) == ["long-000"]
    grid.cut_rack(rack, cut=False)
    await grid.until(lambda: nothing_runs(grid), 20)
    assert await grid.status("long-000") == status
    assert await printed(grid, "long-000") == b"second\n"


async def runs_on(grid: RackGrid, group_id: str) -> bool:
    return bool(grid.running(group_id))


async def test_a_lost_group_is_shown_as_lost(grid: RackGrid) -> None:
    """While others work, a lost group shows as lost since when, its nodes, too; when it is back, it is well."""
    before = (await grid.http.get("/groups")).json()["groups"]
    assert [(group["group"], group["state"]) for group in before] == [(f"rack-{x}", "ok") for x in "abc"]
    grid.cut_rack("rack-a")

    async def shown(state: str) -> bool:
        groups = (await grid.http.get("/groups")).json()["groups"]
        return any((group["group"], group["state"]) == ("rack-a", state) for group in groups)

    await grid.until(lambda: shown("lost"), 10)
    [group, *_] = (await grid.http.get("/capacity")).json()["groups"]
    assert (group["slots"], group["unfinished"], group["nodes"]) == (0, 0, 2)
    assert group["lost_since"] is not None
    nodes = (await grid.http.get("/nodes")).json()["nodes"]
    theirs = [node for node in nodes if node["group"] == "rack-a"]
    assert [node["state"] for node in theirs] == ["lost", "lost"]
    assert "the group is lost: it has had no leader since" in theirs[0]["why"]
    assert (await grid.http.get("/health/ready")).status_code == 200
    grid.cut_rack("rack-a", cut=False)
    await grid.until(lambda: shown("ok"), 20)


async def test_jobs_of_a_group_whose_nodes_are_all_gone_move(grid: RackGrid) -> None:
    """A leader without nodes keeps its lease; jobs that wait for it, or were lost with its nodes, run elsewhere."""
    names = await submit(grid, 24, "sleep 1; echo done")
    grid.cut_nodes("rack-c")
    answers = await ended(grid, names, 40)
    assert {answer["state"] for answer in answers} == {"done"}
    assert await of_rack(grid, "rack-c", names) != names


async def test_a_job_that_a_group_cannot_run_goes_to_another(tmp_path: Path) -> None:
    """A poke to a group whose nodes have all been drained since its last report is refused; the job moves at once."""
    async with RackGrid(tmp_path, racks=2, nodes=1) as grid:
        await grid.http.post("/nodes/rack-a-1/drain")

        async def drained() -> bool:
            leader = grid.leaders["rack-a"].leader
            return not leader._state.takes_jobs(leader._clock())

        await grid.until(drained)
        grid.parent.groups.routing.choose = lambda affinity, site: "rack-a"  # type: ignore[method-assign]  # as if the parent did not know
        answer = await grid.submit("j", "echo here", wait=5)
        assert answer.status_code == 200, answer.text
        status = await grid.status("j")
        assert (status["group"], status["state"]) == ("rack-b", "done")


async def test_a_refused_job_waits_if_no_other_group_can_take_it(tmp_path: Path) -> None:
    """With all nodes drained, a job is taken and waits; the grid shows the reason, and runs it after an undrain."""
    async with RackGrid(tmp_path, racks=2, nodes=1) as grid:
        for node in ("rack-a-1", "rack-b-1"):
            await grid.http.post(f"/nodes/{node}/drain")

        async def not_ready() -> bool:
            return (await grid.http.get("/health/ready")).status_code == 503

        await grid.until(not_ready)
        assert "all nodes are being drained" in (await grid.http.get("/health/ready")).json()["detail"]
        await submit(grid, 1, "echo late", prefix="w")
        await grid.http.delete("/nodes/rack-b-1/drain")
        await grid.until_state("w-000", "done", within_s=15)


async def test_a_job_without_a_leader_can_be_cancelled(tmp_path: Path) -> None:
    """In a grid whose only rack is cut, queued jobs end as cancelled in seconds, running ones when it is lost."""
    async with RackGrid(tmp_path, racks=1, nodes=1, slots=1) as grid:
        await submit(grid, 2, "sleep 300", prefix="c")
        await grid.until_state("c-000", "running")
        grid.cut_rack("rack-a")
        for name in ("c-000", "c-001"):
            assert (await grid.http.delete(f"/jobs/{name}")).status_code == 202
        await grid.until_state("c-001", "cancelled", within_s=6)
        await grid.until_state("c-000", "cancelled", within_s=6)
        ready = (await grid.http.get("/health/ready")).json()
        assert "lost" in ready["detail"]


async def test_an_outage_of_the_job_store_moves_nothing(grid: RackGrid) -> None:
    """All leases run out while the store is unreachable; when it is back, every group keeps its jobs."""
    names = await submit(grid, 18, "sleep 8; echo done")
    before = {name: job.group_id for name, job in (await grid.store.get(names)).items()}
    line = CutStore(grid.parent.store)
    grid.parent.sweeper._store = line
    lines = [line, *(each for group in grid.lines.values() for each in group)]
    for each in lines:
        each.cut = True
    await asyncio.sleep(5)  # the outage itself: until every lease has run out
    assert all(state.left_s < 0 for group, state in (await grid.store.leases()).items() if group != "~sweeper")
    for each in lines:
        each.cut = False
    answers = await ended(grid, names, 60)
    assert {answer["state"] for answer in answers} == {"done"}
    assert {name: job.group_id for name, job in (await grid.store.get(names)).items()} == before
