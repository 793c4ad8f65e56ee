"""A pricer that exits with 0 without its expected files has failed: `expect` over HTTP, cold and warm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from raygrid.models import Outcome
from tests.support.http import unzip
from tests.support.small_grid import SmallGrid
from tests.support.warm import RUNS_ITS_INPUT, WarmNode


def pricers(log: Path) -> dict[str, dict[str, Any]]:
    script = f'echo run >> {log}; . "$0"'
    shell = {"command": ["sh", "-c", script, "{input}"], "expect": ["prices.csv", "risk/*.csv"]}
    return {"shell": shell, "reused": {**shell, "reuse": "content"}}


def runs(log: Path) -> int:
    return len(log.read_text().splitlines())


@pytest.mark.parametrize(
    ("leaves", "lacks"),
    [
        ("true", "prices.csv, risk/*.csv"),
        ("echo 1 > prices.csv", "risk/*.csv"),
        ("mkdir risk; echo 1 > risk/a.csv; : > prices.csv", "prices.csv (empty)"),
        ("mkdir risk prices.csv; echo 1 > risk/a.csv", "prices.csv"),
    ],
)
async def test_exit_0_without_the_expected_files_is_a_failure(tmp_path: Path, leaves: str, lacks: str) -> None:
    """It is final and names what is missing; its other files are kept and can be fetched."""
    log = tmp_path / "log"
    async with SmallGrid(tmp_path / "grid", pricers=pricers(log)) as grid:
        answer = await grid.submit("job", f"{leaves}; echo kept > other.txt; echo said")
        assert (answer.status_code, answer.json()["reason"]) == (422, "missing_output")
        assert f"did not leave {lacks}, which" in answer.json()["detail"]
        status = await grid.status("job")
        assert (status["state"], status["reason"], status["attempts"]) == ("failed", "missing_output", 1)
        assert runs(log) == 1
        kept = unzip(await grid.http.get("/result/job?even_if=failed"))
        assert (kept["other.txt"], kept["stdout.txt"]) == (b"kept\n", b"said\n")
        assert json.loads(kept["manifest.json"])["outcome"] == "missing_output"


async def test_with_the_expected_files_the_job_is_done(tmp_path: Path) -> None:
    """Nothing else changes; a failing exit code stays the reason if files are missing, too."""
    async with SmallGrid(tmp_path / "grid", pricers=pricers(tmp_path / "log")) as grid:
        answer = await grid.submit("good", "echo 1 > prices.csv; mkdir risk; echo 1 > risk/a.csv")
        assert answer.status_code == 200
        assert unzip(answer)["prices.csv"] == b"1\n"
        problem = (await grid.submit("bad", "exit 3")).json()
        assert (problem["reason"], problem["exit_code"]) == ("exit_code", 3)


async def test_a_result_without_the_expected_files_is_never_reused(tmp_path: Path) -> None:
    """With `reuse: content` an equal job runs again after such a failure, and a success is taken over."""
    log, gate = tmp_path / "log", tmp_path / "gate"
    async with SmallGrid(tmp_path / "grid", pricers=pricers(log)) as grid:
        script = f"mkdir risk; echo 1 > risk/a.csv; [ ! -e {gate} ] || echo 1 > prices.csv"
        for number in (1, 2):
            answer = await grid.submit(f"job-{number}", script, pricer="reused")
            assert (answer.json()["reason"], runs(log)) == ("missing_output", number)
        gate.touch()
        for number in (3, 4):
            assert (await grid.submit(f"job-{number}", script, pricer="reused")).status_code == 200
            assert runs(log) == 3


async def test_a_result_from_before_the_files_were_expected_is_not_reused(tmp_path: Path) -> None:
    """Once `expect` is set, results that were made without it no longer count."""
    log = tmp_path / "log"
    before = pricers(log)
    del before["reused"]["expect"]
    async with SmallGrid(tmp_path / "grid", pricers=before) as grid:
        assert (await grid.submit("old", "true", pricer="reused")).status_code == 200
        await grid.deploy(pricers=pricers(log))
        agent = grid.nodes["rack-a-1"].agent

        async def follows() -> bool:
            return bool(agent._pricers["reused"].expect)

        await grid.until(follows)
        assert (await grid.submit("new", "true", pricer="reused")).json()["reason"] == "missing_output"


async def test_a_warm_pricer_must_leave_its_files_in_each_job(tmp_path: Path) -> None:
    """The answer 0 without them fails the job at hand; the process stays for the next one."""
    with WarmNode(tmp_path, RUNS_ITS_INPUT, expect=("prices.csv",)) as node:
        good = "open('prices.csv', 'w').write('1')"
        outcomes = [
            (await node.run(name, script)).report.outcome
            for name, script in (("one", good), ("two", "print('nothing')"), ("three", good))
        ]
        assert outcomes == [Outcome.EXITED, Outcome.MISSING_OUTPUT, Outcome.EXITED]
        assert node.started == 1
