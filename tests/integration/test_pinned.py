"""A job runs the definition that it was submitted with, whatever is deployed or lost meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from raygrid.leader import definitions as leader_definitions
from raygrid.models import Definition, JobState
from raygrid.node import definitions as node_definitions
from tests.support.elected_grid import ElectedGrid
from tests.support.http import manifest, parts_of, unzip, word
from tests.support.small_grid import SmallGrid

SECRET = "tr0ub4dor-and-3"


def says(version: str, **more: Any) -> dict[str, Any]:
    """A pricer that prints its version, a variable and its input."""
    command = ["sh", "-c", f'echo {version} $FEED; cat "$1"', "sh", "{input}"]
    return {"command": command, "version": version, "env": {"FEED": f"feed-{version}"}, **more}


def printed(version: str, job_id: str) -> str:
    """What that pricer prints for a job."""
    return f"{version} feed-{version}\n{job_id}"


BLOCK = {"command": ["sh", "-c", 'while [ ! -e "$(cat "$1")" ]; do sleep 0.02; done', "sh", "{input}"]}
FIRST = {"says": says("one"), "block": BLOCK}
SECOND = {"says": says("two"), "block": BLOCK}


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[SmallGrid]:
    async with SmallGrid(tmp_path, nodes=2, slots=2, pricers=FIRST) as running:
        yield running


async def post(grid: SmallGrid, batch_id: str, job_ids: list[str], **options: str) -> None:
    """Submit jobs whose input is their id."""
    files = [(job_id, ("in", job_id.encode())) for job_id in job_ids]
    data = {"pricer": "says", "batchId": batch_id, **options}
    answer = await grid.http.post("/batches", files=files, data=data)
    assert answer.status_code == 202, answer.text


async def block_slots(grid: SmallGrid, gate: Path, count: int = 4) -> None:
    """Have all slots taken until the file is there, so that what comes now is queued."""
    files = [(f"block-{n}", ("in", str(gate).encode())) for n in range(count)]
    await grid.http.post("/batches", files=files, data={"pricer": "block", "batchId": gate.name, "priority": "9"})
    for number in range(count):
        await grid.until_state(f"block-{number}", "running")


async def outputs(grid: SmallGrid, batch_id: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """By job: what was printed, and the manifest; all jobs of the batch are done."""
    parts, complete = parts_of(await grid.http.get(f"/batches/{batch_id}/results", params={"wait": 120}))
    assert complete
    assert {part.state for part in parts} == {JobState.DONE}
    return {part.job_id: (unzip(part.body)["stdout.txt"].decode(), manifest(part.body)) for part in parts}


async def test_each_of_300_jobs_runs_what_was_current_at_its_submit(grid: SmallGrid, tmp_path: Path) -> None:
    """Jobs that are queued over two deployments print what their version prints, and their status names it."""
    digests, gate = {}, tmp_path / "gate"
    await block_slots(grid, gate)
    for count, (version, pricers) in enumerate([("one", FIRST), ("two", SECOND), ("one", FIRST)]):
        if count:
            await grid.deploy(pricers=pricers)
        digests[version] = grid.parent.definitions.digest("says")
        await post(grid, f"batch-{count}", [f"b{count}-{n}" for n in range(100)])
    assert digests["one"] != digests["two"]
    gate.touch()
    for count, version in enumerate(["one", "two", "one"]):
        done = await outputs(grid, f"batch-{count}")
        assert len(done) == 100
        for job_id, (stdout, ran) in done.items():
            assert stdout == printed(version, job_id)
            assert (ran["version"], ran["definition"]) == (version, digests[version])
        status = await grid.status(f"b{count}-7")
        assert (status["version"], status["definition"]) == (version, digests[version])


async def test_jobs_keep_their_definition_when_leader_and_nodes_are_new(grid: SmallGrid, tmp_path: Path) -> None:
    """A leader and agents that never saw the older settings get what they need from the job store."""
    gate = tmp_path / "gate"
    await block_slots(grid, gate)
    await post(grid, "before", [f"j{n}" for n in range(40)])
    await grid.deploy(pricers=SECOND)
    await grid.leaders["rack-a"].leader.close()
    await grid.new_leader("rack-a")
    for name in ("rack-a-1", "rack-a-2"):
        await grid.restart_node(name)
    await post(grid, "after", [f"k{n}" for n in range(40)])
    gate.touch()
    assert {stdout for stdout, _ in (await outputs(grid, "before")).values()} == {
        printed("one", f"j{n}") for n in range(40)
    }
    assert {stdout for stdout, _ in (await outputs(grid, "after")).values()} == {
        printed("two", f"k{n}") for n in range(40)
    }


async def test_jobs_keep_their_definition_over_a_restart_of_the_whole_grid(tmp_path: Path) -> None:
    """The grid restarts with settings in which the pricer has another command, or is missing."""
    gate = tmp_path / "gate"
    async with SmallGrid(tmp_path, nodes=2, slots=2, pricers={**FIRST, "gone": says("gone")}) as grid:
        await block_slots(grid, gate)
        await post(grid, "before", [f"j{n}" for n in range(10)])
        await post(grid, "removed", [f"r{n}" for n in range(10)], pricer="gone")
    gate.touch()
    async with SmallGrid(tmp_path, nodes=2, slots=2, pricers=SECOND) as grid:
        assert {stdout for stdout, _ in (await outputs(grid, "before")).values()} == {
            printed("one", f"j{n}") for n in range(10)
        }
        assert {stdout for stdout, _ in (await outputs(grid, "removed")).values()} == {
            printed("gone", f"r{n}") for n in range(10)
        }


async def test_a_change_of_leader_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    """The candidate that stood by takes over while jobs of both versions are queued."""
    async with ElectedGrid(tmp_path, nodes=2, slots=2, candidates=2, pricers=FIRST) as grid:
        await post(grid, "before", [f"j{n}" for n in range(100)])
        await grid.deploy(pricers=SECOND)
        await post(grid, "after", [f"k{n}" for n in range(100)])
        leading = await grid.leading("rack-a")
        await leading.die()
        await grid.leading("rack-a", besides=leading)
        before, after = await outputs(grid, "before"), await outputs(grid, "after")
    assert {job_id: stdout for job_id, (stdout, _) in before.items()} == {
        f"j{n}": printed("one", f"j{n}") for n in range(100)
    }
    assert {job_id: stdout for job_id, (stdout, _) in after.items()} == {
        f"k{n}": printed("two", f"k{n}") for n in range(100)
    }


async def test_the_same_job_again_is_the_job_that_was_submitted(grid: SmallGrid, tmp_path: Path) -> None:
    """A submit that is repeated after a deployment attaches, and the job runs what it was first submitted with."""
    gate = tmp_path / "gate"
    await block_slots(grid, gate)
    await grid.submit("same", "same", pricer="says", filename="in", wait=0)
    first = grid.parent.definitions.digest("says")
    await grid.deploy(pricers=SECOND)
    again = await grid.submit("same", "same", pricer="says", filename="in", wait=0)
    assert (again.status_code, again.json()["created"]) == (202, False)
    assert (await grid.status("same"))["definition"] == first
    gate.touch()
    answer = await grid.submit("same", "same", pricer="says", filename="in")
    assert unzip(answer)["stdout.txt"].decode() == printed("one", "same")


async def test_the_current_limits_apply(grid: SmallGrid, tmp_path: Path) -> None:
    """A limit that was lowered by a deployment holds for a queued job; its command is as submitted."""
    gate, forever = tmp_path / "gate", tmp_path / "never"
    await block_slots(grid, gate)
    await grid.submit("stuck", str(forever), pricer="block", filename="in", wait=0)
    await grid.deploy(pricers={"block": {**BLOCK, "timeout_s": 0.5, "version": "2"}})
    gate.touch()
    status = await grid.until_state("stuck", "failed", within_s=20)
    assert (status["reason"], status["version"]) == ("timeout", "1")


async def test_the_limits_of_a_removed_pricer_are_those_last_known(tmp_path: Path) -> None:
    """They are kept beside the definition."""
    gate, forever = tmp_path / "gate", tmp_path / "never"
    async with SmallGrid(tmp_path, slots=1, pricers={**FIRST, "gone": {**BLOCK, "timeout_s": 0.5}}) as grid:
        await block_slots(grid, gate, 1)
        await grid.submit("stuck", str(forever), pricer="gone", filename="in", wait=0)
        await grid.deploy(pricers=FIRST)
        gate.touch()
        assert (await grid.until_state("stuck", "failed", within_s=20))["reason"] == "timeout"


async def test_a_definition_is_stored_once_and_sent_once_to_each_node(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many submits cost one write, one read and one transfer for each node, all with the orders that go anyway."""
    stored: list[list[str]] = []
    put = grid.parent.store.put_definitions

    async def counted(definitions: Sequence[Definition]) -> None:
        stored.append([each.digest for each in definitions])
        await put(definitions)

    monkeypatch.setattr(grid.parent.store, "put_definitions", counted)
    await asyncio.gather(*(grid.submit(f"s{n}", f"s{n}", pricer="says", filename="in") for n in range(20)))
    assert stored == [[grid.parent.definitions.digest("says")]]
    sent = [digest for node in grid.nodes.values() for digest in node.definitions]
    assert 1 <= len(sent) <= 2


async def test_no_job_is_taken_whose_definition_cannot_be_stored(grid: SmallGrid) -> None:
    """The submit is refused, and can be made again."""
    await grid.parent.store.close()
    refused = await grid.submit("early", "early", pricer="says", filename="in")
    assert refused.status_code == 503
    await grid.parent.store.open()
    answer = await grid.submit("early", "early", pricer="says", filename="in")
    assert unzip(answer)["stdout.txt"].decode() == printed("one", "early")


async def lose(grid: SmallGrid, digest: str) -> None:
    """Remove a definition from the job store, as if an older copy of that table had been restored."""
    async with grid.store.database.write() as connection:
        await connection.exec_driver_sql("DELETE FROM definitions WHERE digest = ?", (digest,))


async def test_jobs_whose_definition_is_lost_fail_at_once_and_block_nothing(grid: SmallGrid, tmp_path: Path) -> None:
    """The message has job, definition and remedy; no failure is counted against a node, and other jobs run."""
    gate, lost = tmp_path / "gate", [f"lost-{n}" for n in range(30)]
    await block_slots(grid, gate)
    await post(grid, "lost", lost)
    await grid.deploy(pricers=SECOND)
    digest = (await grid.status("lost-1"))["definition"]
    await lose(grid, digest)
    gate.touch()
    await post(grid, "fine", ["fine-1", "fine-2"])
    async with asyncio.timeout(node_definitions.WAIT_S - 5):
        assert {stdout for stdout, _ in (await outputs(grid, "fine")).values()} == {
            printed("two", "fine-1"),
            printed("two", "fine-2"),
        }
        for job_id in lost:
            status = await grid.until_state(job_id, "failed")
            assert (status["reason"], status["exit_code"]) == ("definition_lost", None)
            for named in (digest, job_id, "submit the job again"):
                assert named in status["message"]
    assert word(await grid.http.get("/result/lost-1")) == "job-failed"
    nodes = grid.leaders["rack-a"].leader._state.nodes.values()
    assert [(node.failures, node.probation_until) for node in nodes] == [(0, None)] * 2


async def test_a_lost_definition_that_is_configured_comes_back(grid: SmallGrid, tmp_path: Path) -> None:
    """Jobs that wait and jobs that are submitted afterwards run, with new leader and nodes, and the store has it."""
    gate = tmp_path / "gate"
    await block_slots(grid, gate)
    await post(grid, "before", ["before-1"])
    digest = (await grid.status("before-1"))["definition"]
    await lose(grid, digest)
    await grid.leaders["rack-a"].leader.close()
    await grid.new_leader("rack-a")
    for name in ("rack-a-1", "rack-a-2"):
        await grid.restart_node(name)
    await post(grid, "after", ["after-1"])
    gate.touch()
    for job_id in ("before", "after"):
        [(stdout, ran)] = (await outputs(grid, job_id)).values()
        assert (stdout, ran["definition"]) == (printed("one", f"{job_id}-1"), digest)
    assert set(await grid.store.definitions([digest])) == {digest}


async def test_an_attempt_whose_definition_never_comes_is_no_failure_of_the_job(
    grid: SmallGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends as the grid's failure; the message names job, node and definition; other jobs go on."""
    monkeypatch.setattr(node_definitions, "WAIT_S", 0.3)
    read = leader_definitions.DefinitionReader.get

    async def without_lost(self: leader_definitions.DefinitionReader, digests: Collection[str]) -> list[Definition]:
        return [each for each in await read(self, digests) if not each.is_lost]

    monkeypatch.setattr(leader_definitions.DefinitionReader, "get", without_lost)
    gate = tmp_path / "gate"
    await block_slots(grid, gate)
    await post(grid, "lost", ["lost-1"])
    await grid.deploy(pricers=SECOND)
    digest = (await grid.status("lost-1"))["definition"]
    await lose(grid, digest)
    gate.touch()
    await post(grid, "fine", ["fine-1", "fine-2"])
    assert {stdout for stdout, _ in (await outputs(grid, "fine")).values()} == {
        printed("two", "fine-1"),
        printed("two", "fine-2"),
    }
    status = await grid.until_state("lost-1", "failed", within_s=40)
    answer = await grid.http.get("/result/lost-1")
    assert word(answer) == "job-failed"
    assert status["exit_code"] is None
    assert digest in status["message"]
    assert "did not come from the job store" in status["message"]


async def test_values_of_variables_stay_in_store_and_nodes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No answer, manifest, event or log has one, also if the pricer cannot be started."""
    secret = {"env": {"TOKEN": SECRET}}
    pricers = {"says": says("one", **secret), "broken": {"command": "/no/such/program {input}", **secret}}
    caplog.set_level("DEBUG")
    async with SmallGrid(tmp_path, slots=1, pricers=pricers, placement={"max_attempts": 1}) as grid:
        texts = []
        for name in pricers:
            texts.append(
                str(unzip(await grid.submit(name, name, pricer=name, filename="in")) if name == "says" else "")
            )
            await grid.submit(name, name, pricer=name, filename="in")
            await grid.until_state(name, "done", "failed")
            texts.append((await grid.http.get(f"/result/{name}")).text if name == "broken" else "")
            texts.append(json.dumps(await grid.status(name)))
        for path in ("/pricers", "/jobs", "/openapi.json", "/nodes", "/groups"):
            texts.append((await grid.http.get(path)).text)
        texts.append(repr(grid.parent.definitions._made))
        [kept] = (await grid.store.definitions([grid.parent.definitions.digest("says")])).values()
    assert SECRET in kept.body
    assert not [text for text in (*texts, caplog.text) if SECRET in text]


async def test_definitions_go_when_nothing_needs_them(grid: SmallGrid, tmp_path: Path) -> None:
    """Housekeeping removes one that no unfinished job runs, long after its last use; a submit stores it again."""
    gate = tmp_path / "gate"
    await block_slots(grid, gate)
    digest = grid.parent.definitions.digest("block")
    await grid.purge(timedelta(days=30))
    assert set(await grid.store.definitions([digest])) == {digest}
    gate.touch()
    for number in range(4):
        await grid.until_state(f"block-{number}", "done")
    await grid.purge(timedelta(hours=12))
    assert set(await grid.store.definitions([digest])) == {digest}
    await grid.purge(timedelta(days=30))
    assert await grid.store.definitions([digest]) == {}
    later = grid.parent.definitions._clock() + 7 * 3600
    grid.parent.definitions._clock = lambda: later
    gate.touch()
    assert (await grid.submit("again", str(gate), pricer="block", filename="in")).status_code == 200
    assert set(await grid.store.definitions([digest])) == {digest}
