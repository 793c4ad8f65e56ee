"""Draining of nodes over HTTP, with real leaders, agents and pricers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from raygrid.models import JobState
from tests.support.http import manifest, parts_of, unzip, word
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.leases


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(tmp_path, nodes=2, slots=3) as running:
        yield running


def gated(gate: Path, runs: Path, name: object) -> str:
    """A job that leaves a mark when it runs, waits for a file, and prints its name."""
    return f"echo {name} >> {runs}; while [ ! -e {gate} ]; do sleep 0.02; done; echo {name}"


async def batch(grid: SmallGrid, batch_id: str, scripts: dict[str, str]) -> None:
    files = [(job_id, ("job.sh", script.encode())) for job_id, script in scripts.items()]
    answer = await grid.http.post("/batches", files=files, data={"pricer": "shell", "batchId": batch_id})
    assert answer.status_code == 202


async def results(grid: SmallGrid, batch_id: str) -> dict[str, dict[str, Any]]:
    """The manifest of each job of a batch, all of them done."""
    parts, complete = parts_of(await grid.http.get(f"/batches/{batch_id}/results", params={"wait": 60}))
    assert complete
    assert {part.state for part in parts} == {JobState.DONE}
    assert len(parts) == len({part.job_id for part in parts})
    return {part.job_id: manifest(part.body) for part in parts}


async def node_of(grid: SmallGrid, name: str) -> dict[str, Any]:
    nodes = {each["node"]: each for each in (await grid.http.get("/nodes")).json()["nodes"]}
    found: dict[str, Any] = nodes.get(name, {"state": "not seen"})
    return found


async def until_node(grid: SmallGrid, name: str, state: str) -> dict[str, Any]:
    async def reached() -> bool:
        return bool((await node_of(grid, name))["state"] == state)

    await grid.until(reached, within_s=10)
    return await node_of(grid, name)


async def drain(grid: SmallGrid, name: str, **params: Any) -> dict[str, Any]:
    answer = await grid.http.post(f"/nodes/{name}/drain", params=params)
    assert answer.status_code == 202
    drained: dict[str, Any] = answer.json()
    return drained


async def until_running(grid: SmallGrid, runs: Path, count: int) -> None:
    async def there() -> bool:
        return runs.exists() and len(runs.read_text().split()) == count

    await grid.until(there)


async def test_a_drain_among_a_hundred_jobs_lets_what_runs_finish_and_starts_nothing_more(
    grid: SmallGrid, tmp_path: Path
) -> None:
    """Of 100 jobs those that run on the drained node end there, no other starts there, and all are done, once."""
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    await batch(grid, "many", {f"m-{n}": gated(gate, runs, n) for n in range(100)})
    await until_running(grid, runs, 6)
    here = set(grid.nodes["rack-a-1"].agent._accepted.by_job)
    assert len(here) == 3

    async def is_told() -> bool:
        return bool((await node_of(grid, "rack-a-1"))["running"] == 3)

    await grid.until(is_told)
    drained = await drain(grid, "rack-a-1")
    assert (drained["node"], drained["state"], drained["running"], drained["drain_deadline_at"]) == (
        "rack-a-1",
        "draining",
        3,
        None,
    )
    assert (await until_node(grid, "rack-a-1", "draining"))["running"] == 3
    load = (await grid.http.get("/capacity")).json()
    assert (load["slots"], load["running"], load["free"]) == (3, 6, 0)
    gate.touch()
    done = await results(grid, "many")
    assert {job_id for job_id, each in done.items() if each["node"] == "rack-a-1"} == here
    assert {each["attempt"] for each in done.values()} == {1}
    assert Counter(runs.read_text().split()) == {str(n): 1 for n in range(100)}
    assert (await until_node(grid, "rack-a-1", "drained"))["running"] == 0


async def test_at_the_deadline_a_long_job_moves_and_is_answered_once(grid: SmallGrid, tmp_path: Path) -> None:
    """A job that outlives the deadline is stopped and answered by another node; it has lost none of its attempts."""
    script = f"mkdir {tmp_path}/first 2>/dev/null || {{ echo moved; exit 0; }}; sleep 1000"
    await grid.submit("long", script, wait=0)
    name = (await grid.until_state("long", "running"))["node"]

    async def started() -> bool:
        return (tmp_path / "first").exists()

    await grid.until(started)
    before = datetime.now(UTC)
    drained = await drain(grid, name, deadline_s=0.5)
    deadline = datetime.fromisoformat(drained["drain_deadline_at"])
    assert abs(deadline - before - timedelta(seconds=0.5)) < timedelta(seconds=2)
    status = await grid.until_state("long", "done", within_s=10)
    assert (status["attempts"], status["node"] == name) == (2, False)
    assert (await until_node(grid, name, "drained"))["drain_deadline_at"] == drained["drain_deadline_at"]
    assert not grid.nodes[name].agent._accepted.by_job
    answer = await grid.http.get("/result/long")
    assert unzip(answer)["stdout.txt"] == b"moved\n"
    again = await grid.http.get("/result/long")
    assert (again.content, again.headers["etag"]) == (answer.content, answer.headers["etag"])


async def test_moving_costs_a_job_none_of_its_attempts(tmp_path: Path) -> None:
    """With a single attempt allowed, a job that is moved is still done."""
    async with SmallGrid(tmp_path, nodes=2, slots=1, placement={"max_attempts": 1}) as grid:
        script = f"mkdir {tmp_path}/first 2>/dev/null || exit 0; sleep 1000"
        await grid.submit("one", script, wait=0)
        name = (await grid.until_state("one", "running"))["node"]

        async def started() -> bool:
            return (tmp_path / "first").exists()

        await grid.until(started)
        await drain(grid, name, deadline_s=0)
        assert (await grid.until_state("one", "done", "failed", within_s=10))["state"] == "done"


async def test_a_drain_outlives_a_change_of_leader_and_a_restart_of_the_agent(grid: SmallGrid, tmp_path: Path) -> None:
    """The next leader knows of the drain before it hands out its first job."""
    await drain(grid, "rack-a-1")
    await until_node(grid, "rack-a-1", "drained")
    await grid.leaders["rack-a"].leader.close()
    await grid.restart_node("rack-a-1")
    await batch(grid, "after", {f"a-{n}": "echo x" for n in range(30)})  # they wait for the next leader
    await grid.new_leader("rack-a")
    done = await results(grid, "after")
    assert {each["node"] for each in done.values()} == {"rack-a-2"}
    assert (await until_node(grid, "rack-a-1", "drained"))["running"] == 0


async def test_a_node_that_is_taken_back_gets_work_again(grid: SmallGrid, tmp_path: Path) -> None:
    """With every node drained a job waits; undrained, the node runs it."""
    for name in grid.nodes:
        await drain(grid, name)
        await until_node(grid, name, "drained")
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    gate.touch()
    await grid.submit("patient", gated(gate, runs, "p"), wait=0)
    answer = await grid.http.delete("/nodes/rack-a-2/drain")
    assert (answer.status_code, answer.json()["state"]) == (200, "ok")
    assert (await grid.until_state("patient", "done", within_s=10))["node"] == "rack-a-2"
    assert (await until_node(grid, "rack-a-2", "ok"))["drain_deadline_at"] is None


async def test_an_unknown_node_is_refused_with_the_known_names(grid: SmallGrid) -> None:
    """A mistyped name does not wait for a node to appear."""
    for method in ("POST", "DELETE"):
        answer = await grid.http.request(method, "/nodes/rack-a-11/drain")
        assert (answer.status_code, word(answer)) == (404, "node-not-found")
        assert answer.json()["detail"] == "there is no node 'rack-a-11'; the nodes are: rack-a-1, rack-a-2"
    assert await grid.store.drains() == {}


@pytest.mark.parametrize("deadline", ["-1", "nan", "inf", "soon", "1e12", ""])
async def test_an_impossible_deadline_is_refused(grid: SmallGrid, deadline: str) -> None:
    """Only seconds from none to a month are accepted, and a refused request changes nothing."""
    answer = await grid.http.post("/nodes/rack-a-1/drain", params={"deadline_s": deadline})
    assert (answer.status_code, word(answer)) == (422, "invalid-request")
    assert "deadline_s" in answer.json()["detail"]
    assert await grid.store.drains() == {}


async def test_a_node_that_is_away_can_be_undrained(grid: SmallGrid) -> None:
    """A node that was drained and switched off is not drained again when it comes back."""
    await grid.store.put_drain("switched-off")
    answer = await grid.http.post("/nodes/switched-off/drain", params={"deadline_s": 5})
    assert (answer.status_code, answer.json()["state"]) == (202, "lost")
    answer = await grid.http.delete("/nodes/switched-off/drain")
    assert (answer.status_code, answer.json()["state"]) == (200, "lost")
    assert await grid.store.drains() == {}
