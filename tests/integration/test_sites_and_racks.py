"""Sites and racks: where jobs run, and which bytes move on the way."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.support.http import unzip, word
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grid(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SmallGrid]:
    directory = tmp_path_factory.mktemp("grid")
    async with SmallGrid(
        directory,
        racks=3,
        slots=4,
        storage={"blobs": str(directory / "shared")},  # as on several machines
        groups={"rack-a": {"site": "tokyo"}, "rack-b": {"site": "osaka"}},
        routing={"site_distance": {"tokyo": {"osaka": 1}, "kyoto": {"osaka": 0.5, "tokyo": 2}}},
        placement={"prefetch": 0},
    ) as running:
        yield running


async def idle(grid: SmallGrid) -> bool:
    load = (await grid.http.get("/capacity")).json()
    return bool(load["running"] == load["queued"] == 0)


async def groups_of(grid: SmallGrid, batch: str) -> Counter[str]:
    page = (await grid.http.get("/jobs", params={"batch": batch, "limit": 1_000})).json()
    return Counter(job["group"] for job in page["jobs"])


async def submit_batch(grid: SmallGrid, batch: str, count: int, script: str, **options: str) -> httpx.Response:
    files = {f"{batch}-{number}": ("job.sh", script.encode()) for number in range(count)}
    answer = await grid.http.post("/batches", files=files, data={"batchId": batch, "pricer": "shell", **options})
    assert answer.status_code == 202, answer.text
    return answer


async def finished(grid: SmallGrid, batch: str) -> dict[str, int]:
    async def over() -> bool:
        return bool((await grid.http.get(f"/batches/{batch}")).json()["finished"])

    await grid.until(over, 60)
    counts: dict[str, int] = (await grid.http.get(f"/batches/{batch}")).json()["counts"]
    return counts


async def test_jobs_that_name_a_site_run_there_while_it_has_room(grid: SmallGrid) -> None:
    """200 jobs for a site, no more at a time than it has slots and a short queue for, all run there."""
    await grid.until(lambda: idle(grid))
    for number in range(20):
        await asyncio.gather(*(grid.submit(f"home-{number}-{each}", "true", site="tokyo") for each in range(10)))
        # The next ones come when the leaders' next report shows what is free.
        await grid.until(lambda: idle(grid))
    states = [await grid.status(f"home-{number}-{each}") for number in range(20) for each in range(10)]
    # The requests of a round arrive in any order: how many of its jobs run in rack-a is decided, not which.
    by_round = [Counter(job["group"] for job in states[start : start + 10]) for start in range(0, 200, 10)]
    assert all(groups["rack-a"] >= 8 for groups in by_round)
    assert sum(groups["rack-a"] for groups in by_round) >= 160
    assert {job["state"] for job in states} == {"done"}


async def test_what_a_full_site_cannot_take_goes_to_the_nearest_other_and_ends(grid: SmallGrid, tmp_path: Path) -> None:
    """200 jobs for Tokyo at once: its slots and a short queue first, then Osaka's, the rest by load; all end."""
    await grid.until(lambda: idle(grid))
    gate = tmp_path / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    limit = grid.parent.groups.routing._policy.queue_limit
    tokyo, osaka, _ = sorted(grid.parent.groups.capacities(), key=lambda group: group.group_id)
    near, next_near = 4 + limit(tokyo), 4 + limit(osaka)
    await submit_batch(grid, "first", near, wait, site="tokyo")
    assert await groups_of(grid, "first") == {"rack-a": near}
    await submit_batch(grid, "second", next_near, wait, site="tokyo")
    assert await groups_of(grid, "second") == {"rack-b": next_near}
    await submit_batch(grid, "third", 200 - near - next_near, wait, site="tokyo")
    assert (await groups_of(grid, "third"))["rack-c"] >= 4
    total: Counter[str] = Counter()
    for batch in ("first", "second", "third"):
        total += await groups_of(grid, batch)
    assert sum(total.values()) == 200
    assert max(total.values()) <= max(near, 200 / 3 + 4)
    gate.touch()
    for batch in ("first", "second", "third"):
        counts = await finished(grid, batch)
        assert counts["done"] == sum(counts.values())


async def test_a_site_without_a_rack_has_the_nearest_one(grid: SmallGrid) -> None:
    """A client in Kyoto, where no rack is, runs in Osaka, by the distances of the settings."""
    await grid.until(lambda: idle(grid))
    assert (await grid.submit("from-kyoto", "true", site="kyoto")).status_code == 200
    assert (await grid.status("from-kyoto"))["group"] == "rack-b"


async def test_an_unknown_site_is_refused_with_the_known_ones(grid: SmallGrid) -> None:
    """A typo runs nowhere rather than far away."""
    answer = await grid.submit("typo", "true", site="tokio")
    assert (answer.status_code, word(answer)) == (422, "unknown-site")
    assert "kyoto, osaka, tokyo" in answer.json()["detail"]
    assert (await grid.http.get("/status/typo")).status_code == 404


async def test_without_sites_a_named_one_is_ignored(tmp_path: Path) -> None:
    """A script that names its site also runs on a grid that knows none."""
    async with SmallGrid(tmp_path) as plain:
        assert (await plain.submit("anywhere", "true", site="tokyo")).status_code == 200


async def test_a_small_batch_uses_every_rack(grid: SmallGrid) -> None:
    """Twelve jobs without preference on three idle racks of four slots: four each, in turn."""
    await grid.until(lambda: idle(grid))
    await submit_batch(grid, "small", 12, "true")
    assert await groups_of(grid, "small") == {"rack-a": 4, "rack-b": 4, "rack-c": 4}
    await finished(grid, "small")


async def test_payload_bytes_are_counted_by_purpose_and_group(grid: SmallGrid) -> None:
    """What an input, shared data and a result move shows up at the parent and at the node, and nowhere else."""
    await grid.until(lambda: idle(grid))

    async def moved() -> tuple[dict[str, Any], dict[str, dict[str, int]], dict[str, dict[str, int]]]:
        traffic = (await grid.http.get("/traffic")).json()
        groups = {each["group"]: each["traffic"] for each in (await grid.http.get("/groups")).json()["groups"]}
        return traffic, {each.pop("group"): each for each in traffic.pop("groups")}, groups

    before, by_group, nodes = await moved()
    assert before["home"] is None
    data, script = os.urandom(50_000), b"cat data/market; true" + b" " * 20_000
    await grid.http.put("/data/market", content=data)
    answer = await grid.http.post(
        "/submit/moves",
        files={"file": ("job.sh", script)},
        data={"pricer": "shell", "site": "osaka", "data": "market"},
    )
    assert unzip(answer)["stdout.txt"] == data
    small = await grid.submit("moves-inline", "true", site="osaka")
    result, small_result = len(answer.content), len(small.content)

    async def reported() -> bool:
        return (await moved())[2]["rack-b"]["served"] == nodes["rack-b"]["served"] + result + small_result

    await grid.until(reported)
    after, then_by_group, then = await moved()
    assert after["parent"] == before["parent"]
    assert after["received"] - before["received"] == len(data) + len(script) + len(b"true")
    assert after["stored"] - before["stored"] == len(data) + len(script)
    grown = {name: then_by_group["rack-b"][name] - by_group["rack-b"][name] for name in ("inline", "from_blobs")}
    assert grown == {"inline": len(b"true"), "from_blobs": 0}
    assert then_by_group["rack-b"]["from_cache"] - by_group["rack-b"]["from_cache"] == result + small_result
    assert {name: then["rack-b"][name] - nodes["rack-b"][name] for name in then["rack-b"]} == {
        "inputs": len(script),
        "data": len(data),
        "results": result + small_result,
        "served": result + small_result,
    }
    assert then["rack-a"] == nodes["rack-a"]
    of_nodes = {each["node"]: each["traffic"] for each in (await grid.http.get("/nodes")).json()["nodes"]}
    assert of_nodes["rack-b-1"] == then["rack-b"]


async def test_under_topology_a_parent_keeps_jobs_in_its_rack_while_slots_are_free(tmp_path: Path) -> None:
    """Of three racks alike the parent's own runs what its slots hold; results are read from its caches."""
    shared = {"blobs": str(tmp_path / "shared")}  # as on several machines
    async with SmallGrid(tmp_path, racks=3, home="rack-b", storage=shared, routing={"policy": "topology"}) as home:
        for number in range(4):
            assert (await home.submit(f"stays-{number}", "true")).status_code == 200
            assert (await home.status(f"stays-{number}"))["group"] == "rack-b"
            await home.until(lambda: idle(home))
        traffic = (await home.http.get("/traffic")).json()
        assert traffic["home"] == "rack-b"
        assert [each["group"] for each in traffic["groups"] if each["from_cache"]] == ["rack-b"]


async def test_submits_without_a_new_job_take_no_room(tmp_path: Path) -> None:
    """Submits that attach to a job or conflict with one do not count as queued, alone or in batches."""
    async with SmallGrid(tmp_path, routing={"max_queued": 10}) as small:
        for _ in range(15):
            assert (await small.submit("same", "true")).status_code == 200
            assert (await small.submit("same", "false")).status_code == 409
            again = await small.http.post("/batches", files={"same": ("job.sh", b"true")}, data={"pricer": "shell"})
            assert again.json()["attached"] == 1
        await small.until(lambda: idle(small))


async def test_a_submit_that_the_store_refuses_takes_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the job store is away, the promise to a group is taken back."""
    async with SmallGrid(tmp_path, slots=1) as small:

        async def away(*_: object) -> None:
            raise RuntimeError("the store is away")

        monkeypatch.setattr(small.parent._inserts, "_send", away)
        monkeypatch.setattr(small.parent.store, "insert", away)
        for number in range(3):
            assert (await small.submit(f"lost-{number}", "true")).status_code == 500
            files = {f"lost-{number}": ("job.sh", b"true")}
            assert (await small.http.post("/batches", files=files, data={"pricer": "shell"})).status_code == 500
        await small.until(lambda: idle(small))
