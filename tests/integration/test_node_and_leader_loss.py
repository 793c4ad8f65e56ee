"""Nodes that fall silent, pokes that get lost, leaders that change: every job ends once, and none is run needlessly."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from raygrid.errors import UnavailableError
from raygrid.models import JobState
from raygrid.node.attempt.workspace import Workspace
from tests.support.http import manifest, parts_of, unzip
from tests.support.small_grid import SmallGrid

pytestmark = pytest.mark.leases


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[SmallGrid]:
    placement = {"node_timeout_s": 0.8, "probation_s": 60.0}
    async with SmallGrid(tmp_path, nodes=2, slots=2, placement=placement) as running:
        yield running


def waiting_for(gate: Path, then: str = "") -> str:
    return f"while [ ! -e {gate} ]; do sleep 0.02; done; {then}"


async def batch(grid: SmallGrid, batch_id: str, scripts: dict[str, str]) -> None:
    files = [(job_id, ("job.sh", script.encode())) for job_id, script in scripts.items()]
    answer = await grid.http.post("/batches", files=files, data={"pricer": "shell", "batchId": batch_id})
    assert answer.status_code == 202


async def all_results(grid: SmallGrid, batch_id: str) -> dict[str, Any]:
    parts, complete = parts_of(await grid.http.get(f"/batches/{batch_id}/results", params={"wait": 60}))
    assert complete
    assert len(parts) == len({part.job_id for part in parts})
    return {part.job_id: part for part in parts}


async def node_states(grid: SmallGrid) -> dict[str, str]:
    return {each["node"]: each["state"] for each in (await grid.http.get("/nodes")).json()["nodes"]}


# --- nodes ----------------------------------------------------------------------------------------------------------


async def test_jobs_of_a_silent_node_run_elsewhere_and_late_answers_change_nothing(
    grid: SmallGrid, tmp_path: Path
) -> None:
    """A job whose node is cut off is answered by another node; the first one's late answer is never visible."""
    gate = tmp_path / "gate"
    script = f"mkdir {tmp_path}/first 2>/dev/null || {{ echo prompt; exit 0; }}; {waiting_for(gate, 'echo late')}"
    await grid.submit("moved", script, wait=0)
    node_id = (await grid.until_state("moved", "running"))["node"]

    async def started() -> bool:
        return (tmp_path / "first").exists()

    await grid.until(started)
    grid.nodes[node_id].cut = True
    status = await grid.until_state("moved", "done", within_s=10)
    assert status["attempts"] == 2
    assert status["node"] != node_id
    answer = await grid.http.get("/result/moved")
    assert unzip(answer)["stdout.txt"] == b"prompt\n"

    grid.nodes[node_id].cut = False
    gate.touch()

    async def heard_again() -> bool:
        agent = grid.nodes[node_id].agent
        return (await node_states(grid)).get(node_id) == "ok" and not agent._accepted.by_job and not agent._log

    await grid.until(heard_again, within_s=10)
    assert (await grid.http.get("/result/moved")).headers["etag"] == answer.headers["etag"]
    again = await grid.status("moved")
    assert (again["attempts"], again["node"], again["ended_at"]) == (2, status["node"], status["ended_at"])


async def test_two_hundred_jobs_survive_the_loss_of_a_node(grid: SmallGrid, tmp_path: Path) -> None:
    """With a node cut off in the middle, each of 200 jobs is done, with its own answer."""
    runs = tmp_path / "runs"
    await batch(grid, "many", {f"many-{n}": f"echo {n} >> {runs}; sleep 0.02; echo {n}" for n in range(200)})

    async def in_the_middle() -> bool:
        return runs.exists() and len(runs.read_text().split()) > 60

    await grid.until(in_the_middle)
    grid.nodes["rack-a-1"].cut = True
    parts = await all_results(grid, "many")
    assert Counter(part.state for part in parts.values()) == {JobState.DONE: 200}
    printed = {job_id: unzip(part.body)["stdout.txt"].decode().strip() for job_id, part in parts.items()}
    assert printed == {f"many-{n}": str(n) for n in range(200)}
    assert set(Counter(runs.read_text().split())) == {str(n) for n in range(200)}


async def test_a_node_that_is_back_in_time_keeps_its_job(grid: SmallGrid, tmp_path: Path) -> None:
    """A silence shorter than the limit costs nothing: the job runs once, where it was."""
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    await grid.submit("kept", f"echo x >> {runs}; {waiting_for(gate, 'echo kept')}", wait=0)
    node = grid.nodes[(await grid.until_state("kept", "running"))["node"]]
    node.cut = True
    await asyncio.sleep(0.3)  # well below the limit of 0.8 s
    node.cut = False
    gate.touch()
    status = await grid.until_state("kept", "done")
    assert (status["attempts"], runs.read_text()) == (1, "x\n")


async def test_a_lone_node_that_comes_back_keeps_what_still_runs(tmp_path: Path) -> None:
    """Where no other node took the job meanwhile, the attempt that was thought lost is taken up again, not repeated."""
    async with SmallGrid(tmp_path, slots=1, placement={"node_timeout_s": 0.5}) as grid:
        gate, runs = tmp_path / "gate", tmp_path / "runs"
        await grid.submit("alone", f"echo x >> {runs}; {waiting_for(gate, 'echo done')}", wait=0)
        await grid.until_state("alone", "running")
        grid.nodes["rack-a-1"].cut = True
        await grid.until_state("alone", "queued", within_s=10)
        grid.nodes["rack-a-1"].cut = False
        await grid.until_state("alone", "running", within_s=10)
        gate.touch()
        await grid.until_state("alone", "done")
        assert runs.read_text() == "x\n"


async def test_a_node_that_fails_every_job_goes_on_probation(
    grid: SmallGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node on which attempt after attempt fails for its own reasons gets no more, and no job fails for it."""
    create = Workspace.create

    def failing(self: Workspace, attempt: Any, **more: Any) -> Any:
        if self.root.name == "rack-a-2":
            raise OSError(30, "Read-only file system")
        return create(self, attempt, **more)

    monkeypatch.setattr(Workspace, "create", failing)
    # The good node is occupied until the other has had its attempts; else it could be the faster one and run all jobs.
    gate = tmp_path / "gate"
    await batch(grid, "hole", {f"hole-{n}": waiting_for(gate, "echo x") for n in range(40)})

    async def on_probation() -> bool:
        return await node_states(grid) == {"rack-a-1": "ok", "rack-a-2": "probation"}

    await grid.until(on_probation, within_s=10)
    gate.touch()
    parts = await all_results(grid, "hole")
    assert Counter(part.state for part in parts.values()) == {JobState.DONE: 40}
    assert {manifest(part.body)["node"] for part in parts.values()} == {"rack-a-1"}
    assert await on_probation()


async def test_an_unhealthy_node_gets_no_work(grid: SmallGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without room on its disk is shown with the reason, and jobs go to the other one."""
    free = Workspace.free_bytes
    monkeypatch.setattr(Workspace, "free_bytes", lambda self: 10 if self.root.name == "rack-a-1" else free(self))

    async def unhealthy() -> bool:
        return (await node_states(grid)).get("rack-a-1") == "unhealthy"

    await grid.until(unhealthy, within_s=10)
    assert (await grid.http.get("/capacity")).json()["slots"] == 2
    await batch(grid, "healthy", {f"healthy-{n}": "echo x" for n in range(10)})
    parts = await all_results(grid, "healthy")
    assert {manifest(part.body)["node"] for part in parts.values()} == {"rack-a-2"}


async def test_a_result_whose_node_is_gone_comes_from_the_blob_store(grid: SmallGrid) -> None:
    """The cache of a node is only faster: without it the same bytes come from the blob store."""
    answer = await grid.submit("stored", "echo x")
    [node] = [each for each in grid.nodes.values() if each.agent.node_id == manifest(answer)["node"]]
    node.agent._cache._packs.clear()
    again = await grid.http.get("/result/stored")
    assert (again.content, again.headers["etag"]) == (answer.content, answer.headers["etag"])


# --- leaders --------------------------------------------------------------------------------------------------------


async def test_lost_pokes_cost_a_scan_and_never_a_job(grid: SmallGrid) -> None:
    """Jobs that were never announced to the leader are found in the store."""
    grid.leaders["rack-a"].deaf = True
    await batch(grid, "unheard", {f"unheard-{n}": "echo x" for n in range(20)})
    parts = await all_results(grid, "unheard")
    assert Counter(part.state for part in parts.values()) == {JobState.DONE: 20}


async def test_a_cancel_that_did_not_reach_the_leader_is_carried_out_by_the_next(
    grid: SmallGrid, tmp_path: Path
) -> None:
    """The request is kept in the store, and the next leader carries it out."""
    await grid.submit("wished", "sleep 1000", wait=0)
    await grid.until_state("wished", "running")
    grid.leaders["rack-a"].cut = True
    assert (await grid.http.delete("/jobs/wished")).status_code == 202
    assert (await grid.status("wished"))["cancel_requested"]
    before = grid.leaders["rack-a"].leader
    await grid.new_leader("rack-a")
    await grid.until_state("wished", "cancelled", within_s=10)
    await before.close()


async def test_the_next_leader_adopts_running_attempts(grid: SmallGrid, tmp_path: Path) -> None:
    """A change of leader in the middle repeats nothing: running attempts go on, waiting ones follow, each runs once."""
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    scripts = {f"job-{n}": f"echo {n} >> {runs}; {waiting_for(gate, f'echo {n}')}" for n in range(12)}
    await batch(grid, "change", scripts)

    async def four_run() -> bool:
        return runs.exists() and len(runs.read_text().split()) == 4

    await grid.until(four_run)
    before = grid.leaders["rack-a"].leader
    await before.close()
    after = await grid.new_leader("rack-a")
    assert after._lease.term == before._lease.term + 1

    async def known_again() -> bool:
        load = (await grid.http.get("/capacity")).json()
        return (load["running"], load["queued"]) == (4, 8)

    await grid.until(known_again)
    gate.touch()
    parts = await all_results(grid, "change")
    assert Counter(part.state for part in parts.values()) == {JobState.DONE: 12}
    assert {manifest(part.body)["attempt"] for part in parts.values()} == {1}
    assert Counter(runs.read_text().split()) == {str(n): 1 for n in range(12)}


async def test_answers_from_between_two_leaders_are_not_lost(grid: SmallGrid, tmp_path: Path) -> None:
    """What ends between two leaders is reported to the next one."""
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    await batch(grid, "between", {f"b-{n}": f"echo {n} >> {runs}; {waiting_for(gate, f'echo {n}')}" for n in range(4)})

    async def all_run() -> bool:
        return runs.exists() and len(runs.read_text().split()) == 4

    await grid.until(all_run)
    await grid.leaders["rack-a"].leader.close()
    gate.touch()

    async def all_ended() -> bool:
        return not any(node.agent._accepted.by_job for node in grid.nodes.values())

    await grid.until(all_ended)
    assert (await grid.http.get("/batches/between")).json()["counts"]["done"] == 0
    await grid.new_leader("rack-a")
    parts = await all_results(grid, "between")
    assert Counter(part.state for part in parts.values()) == {JobState.DONE: 4}
    assert Counter(runs.read_text().split()) == {str(n): 1 for n in range(4)}


async def test_a_leader_that_was_replaced_can_do_no_harm(grid: SmallGrid, tmp_path: Path) -> None:
    """Two leaders at once: the older one is refused as stale, and each job still runs and ends once."""
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    await batch(grid, "rivals", {f"r-{n}": f"echo {n} >> {runs}; {waiting_for(gate, f'echo {n}')}" for n in range(12)})

    async def some_run() -> bool:
        return runs.exists() and len(runs.read_text().split()) == 4

    await grid.until(some_run)
    before = grid.leaders["rack-a"].leader
    await grid.new_leader("rack-a")

    async def reported() -> bool:
        return before._lease.term in grid.stale_terms

    await grid.until(reported, within_s=10)
    gate.touch()
    parts = await all_results(grid, "rivals")
    assert Counter(part.state for part in parts.values()) == {JobState.DONE: 12}
    assert Counter(runs.read_text().split()) == {str(n): 1 for n in range(12)}
    assert set(grid.stale_terms) == {before._lease.term}
    await before.close()


async def test_a_leader_cut_off_from_the_parents_still_gets_the_work_done(grid: SmallGrid) -> None:
    """While parents cannot reach a leader, jobs are taken all the same, and run."""
    grid.leaders["rack-a"].cut = True
    with pytest.raises(UnavailableError):
        await grid.leaders["rack-a"].link.enqueue([])
    answer = await grid.submit("unreached", "echo x", wait=20)
    assert answer.status_code == 200


async def test_an_idle_node_is_never_taken_for_a_silent_one(tmp_path: Path) -> None:
    """However short the silence that counts, a node that has nothing to report keeps its long job."""
    async with SmallGrid(tmp_path, slots=1, placement={"node_timeout_s": 0.4}) as grid:
        assert unzip(await grid.submit("long", "sleep 2; echo once"))["stdout.txt"] == b"once\n"
        assert (await grid.status("long"))["attempts"] == 1
