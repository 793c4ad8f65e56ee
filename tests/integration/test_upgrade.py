"""A grid that is deployed anew while it works: new parents bring newer settings, leaders and agents stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from raygrid.models import BlobSlice, JobSpec, JobState, NewJob
from tests.support.http import manifest, parts_of, word
from tests.support.small_grid import PRICERS, SHELL, SmallGrid

MORE = {**PRICERS, "new": SHELL}


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(tmp_path, nodes=2, slots=3, pricers={**PRICERS, "old": SHELL}) as running:
        yield running


def gated(gate: Path, runs: Path, name: object) -> str:
    """A job that leaves a mark when it runs, waits for a file, and prints its name."""
    return f"echo {name} >> {runs}; while [ ! -e {gate} ]; do sleep 0.02; done; echo {name}"


async def batch(grid: SmallGrid, batch_id: str, scripts: dict[str, str], **options: Any) -> None:
    files = [(job_id, ("job.sh", script.encode())) for job_id, script in scripts.items()]
    data = {"pricer": "shell", "batchId": batch_id, **options}
    answer = await grid.http.post("/batches", files=files, data=data)
    assert answer.status_code == 202, answer.text


async def results(grid: SmallGrid, batch_id: str) -> dict[str, dict[str, Any]]:
    """The manifest of each job of a batch, all of them done."""
    parts, complete = parts_of(await grid.http.get(f"/batches/{batch_id}/results", params={"wait": 60}))
    assert complete
    assert {part.state for part in parts} == {JobState.DONE}
    assert len(parts) == len({part.job_id for part in parts})
    return {part.job_id: manifest(part.body) for part in parts}


def of_an_older_release(job_id: str, script: str, pricer: str) -> NewJob:
    """A job as a release stored it that pinned no definitions."""
    content = script.encode()
    place = BlobSlice("", 0, len(content), sha256(content).hexdigest())
    return NewJob(JobSpec(job_id, pricer, "0", place, "job.sh", inline=content), "rack-a", "f")


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


async def until_lines(grid: SmallGrid, path: Path, count: int) -> None:
    async def there() -> bool:
        return len(lines(path)) == count

    await grid.until(there)


async def until_following(grid: SmallGrid, deployed_at: float) -> None:
    """Wait until leader and agents follow the settings of that stamp."""

    async def following() -> bool:
        stamps = {node.agent._deployed_at for node in grid.nodes.values()}
        stamps |= {leader.leader._settings.deployed_at for leader in grid.leaders.values()}
        return stamps == {deployed_at}

    await grid.until(following, within_s=10)


async def test_a_new_pricer_reaches_every_node_while_a_hundred_jobs_run(grid: SmallGrid, tmp_path: Path) -> None:
    """Nothing is lost, nothing runs twice, the leader stays, and the new pricer fills every slot of every node."""
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    await batch(grid, "many", {f"m-{n}": gated(gate, runs, n) for n in range(100)})
    await until_lines(grid, runs, 6)
    refused = await grid.submit("too-early", "echo x", pricer="new")
    assert (refused.status_code, word(refused)) == (422, "unknown-pricer")
    term = grid.leaders["rack-a"].leader._lease.term

    await grid.deploy(pricers=MORE)
    new_gate, new_runs = tmp_path / "new-gate", tmp_path / "new-runs"
    await batch(grid, "new", {f"n-{n}": gated(new_gate, new_runs, n) for n in range(6)}, pricer="new", priority="10")
    await until_following(grid, 1.0)
    gate.touch()
    await until_lines(grid, new_runs, 6)
    new_gate.touch()
    done = await results(grid, "new")
    assert Counter(each["node"] for each in done.values()) == {"rack-a-1": 3, "rack-a-2": 3}
    assert {each["attempt"] for each in done.values()} == {1}
    await results(grid, "many")
    assert Counter(lines(runs)) == {str(n): 1 for n in range(100)}
    assert grid.leaders["rack-a"].leader._lease.term == term
    assert grid.stale_terms == []


async def test_an_older_parent_does_not_bring_back_older_settings(grid: SmallGrid) -> None:
    """While both parents are there, as in a rolling update, the newer settings stay."""
    older = grid.parent
    first = grid.settings
    await grid.deploy(beside=True, pricers=MORE)
    await until_following(grid, 1.0)
    heard = {older.groups.known.by_id["rack-a"].answered_at}

    async def heard_again() -> bool:
        heard.add(older.groups.known.by_id["rack-a"].answered_at)
        return len(heard) > 3

    await grid.until(heard_again)
    await until_following(grid, 1.0)
    await grid.leaders["rack-a"].link.configure(first)  # as a parent would that asked before the newer one did
    assert (await grid.submit("after", "echo x", pricer="new")).status_code == 200
    calls = [node.calls.count("configure") for node in grid.nodes.values()]
    assert calls == [1, 1]


async def test_a_restarted_leader_gets_newer_settings_and_fails_nothing_meanwhile(grid: SmallGrid) -> None:
    """A leader that came up with the settings it was made with runs a job of a pricer that it does not know yet."""
    first = grid.settings
    await grid.deploy(pricers=MORE)
    await until_following(grid, 1.0)
    await grid.leaders["rack-a"].leader.close()
    leader = await grid.new_leader("rack-a", first)
    grid.leaders["rack-a"].cut = True  # no parent reaches it for now
    await grid.submit("kept", "echo x", pricer="new", wait=0)

    status = await grid.until_state("kept", "done", "failed", within_s=10)
    assert (status["state"], status["attempts"]) == ("done", 1)
    assert "new" not in leader._settings.pricers
    grid.leaders["rack-a"].cut = False
    await until_following(grid, 1.0)


async def test_a_job_of_an_older_release_waits_for_a_leader_that_knows_its_pricer(grid: SmallGrid) -> None:
    """It has no definition, so it runs what is configured when it starts; the status names none, the manifest does."""
    first = grid.settings
    await grid.deploy(pricers=MORE)
    await until_following(grid, 1.0)
    await grid.leaders["rack-a"].leader.close()
    leader = await grid.new_leader("rack-a", first)
    grid.leaders["rack-a"].cut = True
    await grid.store.insert([of_an_older_release("kept", "echo x", "new")])

    async def set_aside() -> bool:
        return list(leader._state._backlog.aside) == ["kept"]

    await grid.until(set_aside, within_s=10)
    assert (await grid.status("kept"))["state"] == "queued"
    grid.leaders["rack-a"].cut = False
    status = await grid.until_state("kept", "done", "failed", within_s=10)
    assert (status["state"], status["attempts"], status["definition"]) == ("done", 1, None)
    ran = manifest(await grid.http.get("/result/kept"))
    assert (ran["version"], ran["definition"]) == ("1", grid.parent.definitions.digest("new"))
    await until_following(grid, 1.0)


async def test_a_restarted_agent_gets_no_job_before_it_has_newer_settings(grid: SmallGrid, tmp_path: Path) -> None:
    """An agent that came up with the settings it was made with runs the new pricer like the others."""
    first = grid.settings
    await grid.deploy(pricers=MORE)
    await until_following(grid, 1.0)
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    await grid.restart_node("rack-a-1", first)

    async def found() -> bool:
        return grid.leaders["rack-a"].leader._nodes["rack-a-1"].link is grid.nodes["rack-a-1"].link

    await grid.until(found)
    await batch(grid, "new", {f"n-{n}": gated(gate, runs, n) for n in range(6)}, pricer="new")
    await until_lines(grid, runs, 6)
    gate.touch()
    done = await results(grid, "new")
    assert Counter(each["node"] for each in done.values()) == {"rack-a-1": 3, "rack-a-2": 3}
    assert grid.nodes["rack-a-1"].agent._deployed_at == 1.0


async def test_jobs_of_a_removed_pricer_run_and_those_of_an_older_release_fail_with_a_message(
    grid: SmallGrid, tmp_path: Path
) -> None:
    """Submitted jobs run, on nodes that never knew the pricer, too; only a job without definition cannot."""
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    await batch(grid, "runs", {f"r-{n}": gated(gate, runs, n) for n in range(6)}, pricer="old")
    await until_lines(grid, runs, 6)
    await batch(grid, "waits", {f"w-{n}": f"echo {n}" for n in range(4)}, pricer="old")
    await grid.store.insert([of_an_older_release("without", "echo x", "old")])
    await grid.deploy(pricers=PRICERS)
    status = await grid.until_state("without", "failed", within_s=10)
    assert (status["reason"], status["attempts"]) == ("unknown_pricer", 0)
    answer = await grid.http.get("/result/without")
    assert (answer.status_code, word(answer)) == (422, "job-failed")
    assert "pricer 'old' is not configured any more; configure it again" in answer.json()["detail"]
    refused = await grid.submit("late", "echo x", pricer="old")
    assert (refused.status_code, word(refused)) == (422, "unknown-pricer")
    await grid.restart_node("rack-a-1")
    gate.touch()
    assert set(await results(grid, "waits")) == {f"w-{n}" for n in range(4)}
    await results(grid, "runs")
    counts = Counter(lines(runs))
    assert set(counts) == {str(n) for n in range(6)}


async def test_slots_and_quota_change_while_jobs_run(tmp_path: Path) -> None:
    """More slots and another quota take effect while jobs run."""
    async with SmallGrid(tmp_path, slots=1, groups={"rack-a": {"quota": 1}}) as grid:
        gate, runs = tmp_path / "gate", tmp_path / "runs"
        await batch(grid, "many", {f"m-{n}": gated(gate, runs, n) for n in range(5)})
        await until_lines(grid, runs, 1)
        await grid.deploy(node={"slots": 4, "kill_grace_s": 0.2}, groups={"rack-a": {"quota": 3, "site": "ldn"}})
        await until_lines(grid, runs, 3)

        async def shown() -> bool:
            [group] = (await grid.http.get("/groups")).json()["groups"]
            return (group["slots"], group["running"], group["queued"], group["site"]) == (3, 3, 2, "ldn")

        await grid.until(shown)
        gate.touch()
        assert {each["attempt"] for each in (await results(grid, "many")).values()} == {1}
