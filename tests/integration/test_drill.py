"""`raygrid drill` on a whole grid in one process: faults without Ray, and a planted loss is reported."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from raygrid.cli import app, demo
from raygrid.cli import drill as command
from raygrid.client import Client
from raygrid.drill.drill import Drill, DrillTimeouts
from raygrid.drill.injector import FaultTarget, GridSnapshot, Injector, Place, RunningCandidate
from raygrid.local import GridFile
from raygrid.settings.model import load_settings
from raygrid.settings.started_with import StartedWith
from tests.support.small_grid import PRICERS, SmallGrid

pytestmark = pytest.mark.leases

DRILL = {"command": ["sh", "-c", 'sleep 0.1; cat "$0"', "{input}"], "result": "stdout"}
PATIENCE = DrillTimeouts(whole=30, flow=30, recover=30, drain=30, after=0.2)


class Breaks:
    """Breaks a `SmallGrid`; `plant` further damages the job store with each inject."""

    def __init__(self, grid: SmallGrid, plant: str = "") -> None:
        self.grid = grid
        self.plant = plant
        self.log: list[str] = []
        self._aim = FaultTarget("nothing")
        self._loop = asyncio.get_running_loop()

    async def look(self) -> GridSnapshot:
        places = tuple(Place(name, name.rpartition("-")[0], "127.0.0.1") for name in self.grid.nodes)
        candidates = tuple(RunningCandidate(group, f"{group}-1", True) for group in self.grid.leaders)
        return GridSnapshot(places, candidates, ("rack-a-1",), head_spared="there is no head")

    async def aim(self, aim: FaultTarget) -> str:
        self._aim = aim
        return f"{aim.what} {' '.join(aim.places)}"

    async def inject(self) -> None:
        # The command has an event loop of its own, in a thread of its own.
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._inject(), self._loop))

    async def _inject(self) -> None:
        for place in self._aim.places if self._aim.what in ("agent", "node") else ():
            if self._aim.freeze_s:
                self.grid.nodes[place].cut = True
                self._loop.call_later(min(self._aim.freeze_s, 7.0), self._thaw)
            else:
                await self.grid.restart_node(place)
        if self._aim.what == "leader":
            await self.grid.new_leader(self._aim.group)
        if self.plant:
            path = self.grid.settings.grid_dir / "jobs.db"
            await asyncio.to_thread(damage, path, self.plant)
        self.log.append(f"inject {self._aim.what}")

    def _thaw(self) -> None:
        for node in self.grid.nodes.values():
            node.cut = False

    async def heal(self) -> None:
        self.log.append("heal")

    async def close(self) -> None:
        self.log.append("close")


def damage(path: Path, statement: str) -> None:
    with sqlite3.connect(path, timeout=10) as connection:
        changed = connection.execute(statement).rowcount
    connection.close()
    assert changed > 0, f"nothing was planted by {statement}"


@pytest.fixture
async def grid(tmp_path: Path) -> AsyncIterator[SmallGrid]:
    """Two racks of one node, with a harmless pricer."""
    async with SmallGrid(tmp_path, racks=2, pricers={**PRICERS, "drill": DRILL}) as small:
        yield small


def drill(grid: SmallGrid, breaks: Injector, jobs: int = 40) -> Drill:
    return Drill([grid.url], None, "drill", lambda: breaks, jobs=jobs, patience=PATIENCE)


async def test_an_agent_that_dies_costs_nothing(grid: SmallGrid) -> None:
    """Jobs that ran there run again, every result is right, and the time until the first of them is reported."""
    breaks = Breaks(grid)
    [report] = await drill(grid, breaks).run(["agent"])
    assert report.is_well, report
    assert report.done == report.acknowledged >= 40
    assert (report.lost, report.wrong, report.client_errors) == (0, 0, 0), report.errors
    assert report.repeated > 0
    assert report.recovery_s is not None
    assert 0 < report.recovery_s < 20
    assert breaks.log == ["inject agent", "heal", "heal", "close"]


async def test_a_change_of_leaders_costs_nothing_and_a_grid_without_a_head_is_spared(grid: SmallGrid) -> None:
    """Scenarios run one after the other; an impossible one is skipped once, with its reason."""
    reports = await drill(grid, Breaks(grid)).run(["leader", "head"], runs=2)
    assert [(report.scenario, report.skipped) for report in reports] == [
        ("leader", ""),
        ("leader", ""),
        ("head", "there is no head"),
    ]
    for report in reports[:2]:
        assert report.is_well, report
        assert report.recovery_s is not None


async def test_a_drill_that_is_interrupted_cleans_up(grid: SmallGrid) -> None:
    """What is frozen is thawed, and the drill's own jobs are cancelled; nothing runs on."""
    breaks = Breaks(grid)
    running = asyncio.create_task(drill(grid, breaks, jobs=10_000).run(["agent"]))

    async def has_struck() -> bool:
        return "inject agent" in breaks.log

    await grid.until(has_struck)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert breaks.log == ["inject agent", "heal", "close"]

    async def states() -> set[str]:
        return {job["state"] for job in (await grid.http.get("/jobs?limit=1000")).json()["jobs"]}

    async def all_have_ended() -> bool:
        return not await states() & {"queued", "running"}

    await grid.until(all_have_ended)
    assert await states() == {"done", "cancelled"}


async def test_the_demo_kills_halfway_and_reports_every_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every price is there, and the line counts the jobs, those that were lost (none), and those that ran again."""
    book = [tmp_path / f"{number}.csv" for number in range(12)]
    for path in book:
        path.write_text("kind,price\ncall,1.5\n")
    # The first attempt of each takes its time, so that some run when the agent dies.
    price = {"command": ["sh", "-c", 'sleep 0.3; cp "$0" prices.csv', "{input}"]}
    async with SmallGrid(tmp_path / "state", nodes=2, pricers={"price": price}) as small:
        loop = asyncio.get_running_loop()

        killed: list[str] = []

        def kill() -> None:
            killed.append("rack-a-2")
            asyncio.run_coroutine_threadsafe(small.restart_node("rack-a-2"), loop).result(30)

        with Client(small.url) as client:
            failed = await asyncio.to_thread(demo._price, client, book, tmp_path / "results", "rack-a-2", kill)
    assert (failed, killed) == (0, ["rack-a-2"])
    text = capsys.readouterr().out
    reported = re.search(
        r"killed the agent of rack-a-2 after 6 jobs \((\d) running there\): (.*) jobs done, (.*)", text
    )
    assert reported is not None, text
    assert reported[2] == "12 of 12"
    assert re.fullmatch(r"0 lost, \d run again", reported[3])
    assert (tmp_path / "results" / "11" / "prices.csv").read_text() == book[11].read_text()


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No grid of this machine is looked at."""
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path / "none"))
    monkeypatch.setattr(command, "_way_into_ray", lambda url, directory: ({}, None))


async def run(grid: SmallGrid, breaks: Breaks, monkeypatch: pytest.MonkeyPatch, *words: str) -> Result:
    monkeypatch.setattr(command, "open_injector", lambda environment: lambda: breaks)
    return await asyncio.to_thread(CliRunner().invoke, app, ["drill", *words, "--url", grid.url])


@pytest.mark.usefixtures("no_ray")
async def test_the_command_prints_one_object(grid: SmallGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json nothing else is on standard output, and all figures are there."""
    ended = await run(grid, Breaks(grid), monkeypatch, "agent", "--json", "--jobs", "30")
    assert ended.exit_code == 0, ended.output
    [scenario] = json.loads(ended.stdout)["scenarios"]
    figures = {"scenario", "acknowledged", "done", "lost", "repeated", "wrong", "client_errors", "recovery_s"}
    assert figures <= scenario.keys()
    assert scenario["done"] == scenario["acknowledged"] >= 30


# Not one of the latest, whose result may still be on its way to its client; nor of the first, which are the reference.
ONE = " WHERE job_id = (SELECT job_id FROM jobs WHERE state = 'done' ORDER BY seq DESC LIMIT 1 OFFSET 5)"
PLANTED = {
    "a job is gone": ("DELETE FROM jobs", "lost"),
    "a job that was done is not": ("UPDATE jobs SET state = 'cancelled'", "failed"),
}


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("planted", PLANTED)
async def test_a_planted_loss_makes_the_exit_code_1(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    """A grid that loses or changes a job is reported: by the figures, in words, and by the exit code."""
    statement, figure = PLANTED[planted]
    statement += ONE
    ended = await run(grid, Breaks(grid, statement), monkeypatch, "agent", "--json", "--jobs", "30")
    assert ended.exit_code == 1, ended.output
    [scenario] = json.loads(ended.stdout)["scenarios"]
    assert scenario[figure] == 1
    assert len(scenario["violations"]) == 1
    assert scenario["violations"][0] in ended.stderr


@pytest.mark.usefixtures("no_ray")
async def test_a_grid_with_other_work_is_not_touched_unasked(grid: SmallGrid, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal and without --yes nothing is broken; with --yes it is, and the others' jobs end well."""
    breaks = Breaks(grid)
    others = [asyncio.create_task(grid.submit(f"other-{n}", "sleep 2; echo well")) for n in range(2)]
    await grid.until_state("other-1", "running")
    refused = await run(grid, breaks, monkeypatch, "agent")
    assert refused.exit_code == 2
    assert "the grid has other work" in refused.stderr
    assert "--yes" in refused.stderr
    assert breaks.log == []
    ended = await run(grid, breaks, monkeypatch, "agent", "--yes", "--jobs", "20")
    assert ended.exit_code == 0, ended.output
    assert "agent" in ended.stdout
    assert "inject agent" in breaks.log
    assert [(await each).status_code for each in others] == [200, 200]


@pytest.mark.usefixtures("no_ray")
async def test_a_grid_without_a_harmless_pricer_is_an_error_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the lines for grid.yaml; a pricer that is named must exist."""
    async with SmallGrid(tmp_path / "plain") as plain:
        ended = await run(plain, Breaks(plain), monkeypatch, "agent")
        assert ended.exit_code == 2
        assert command.HARMLESS in ended.stderr
        ended = await run(plain, Breaks(plain), monkeypatch, "agent", "--pricer", "nobody")
        assert "the grid has no pricer nobody; it has: args, cat" in ended.stderr


@pytest.mark.usefixtures("no_ray")
async def test_a_grid_that_could_not_be_started_again_is_not_killed(
    grid: SmallGrid, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before anything is killed, `everything` requires the settings file that the grid was started with."""
    settings = load_settings(pricers={"drill": DRILL})
    here = GridFile(grid.url, 4711, 1, "default", tmp_path, started_with=StartedWith.of(settings, 1, 2))
    monkeypatch.setattr(command, "_local_grid", lambda url: here)
    breaks = Breaks(grid)
    ended = await run(grid, breaks, monkeypatch, "everything")
    assert ended.exit_code == 2
    assert "pricer drill: the grid has it, you did not ask for it\n" in ended.stderr
    assert "Name the settings file that it was started with (--config)" in ended.stderr
    assert breaks.log == []
    known = tmp_path / "grid.yaml"
    known.write_text(json.dumps({"pricers": {"drill": DRILL}}))
    command._require_known(here, load_settings(known))
