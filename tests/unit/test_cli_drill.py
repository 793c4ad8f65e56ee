"""`raygrid drill`: how it prints what it found; the drills themselves are tested on grids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

import pytest
from typer.testing import CliRunner, Result

from raygrid.cli import app
from raygrid.cli import drill as command
from raygrid.drill.report import Report

WELL = Report("agent", acknowledged=100, done=100, recovery_s=0.94)
LOST = Report("node", acknowledged=9, done=8, lost=1, violations=("job j was lost",), note="something to know")


class RunDrill(Protocol):
    """Runs `raygrid drill` with a drill that gives these reports."""

    def __call__(self, reports: list[Report], *words: str) -> Result: ...


@pytest.fixture
def drill(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> RunDrill:
    """Run the command with a drill that has found something."""
    monkeypatch.setenv("RAYGRID_URL", "http://grid.test")
    monkeypatch.setenv("COLUMNS", "200")

    def drill(reports: list[Report], *words: str) -> Result:
        async def found(*args: object, **options: object) -> list[Report]:
            return reports

        monkeypatch.setattr(command, "_run", found)
        monkeypatch.setattr(command, "_way_into_ray", lambda url, directory: ({}, None))
        monkeypatch.setattr(command, "_pricer", lambda client, wanted: "drill")
        monkeypatch.setattr(command, "_ask", lambda client, yes: None)
        return CliRunner().invoke(app, ["drill", "all", *words])

    return drill


def columns(printed: str) -> list[str]:
    """The names of the table's columns."""
    return [name.strip() for name in printed.splitlines()[2].strip("┃").split("┃")]


def test_a_drill_ends_with_a_sentence_and_has_no_empty_column(drill: RunDrill) -> None:
    """Without notes there is no column for them, and the last line states whether all is well."""
    ended = drill([WELL])

    assert ended.exit_code == 0
    assert columns(ended.stdout)[-1] == "recovery"
    assert ended.stdout.splitlines()[-1].startswith("nothing was lost: 100 jobs acknowledged, 100 done; ")


def test_what_was_lost_is_in_the_last_line_too(drill: RunDrill) -> None:
    """Violations are listed, notes have a column with a name, and the exit code is 1."""
    ended = drill([WELL, LOST, Report("head", skipped="in memory")])

    assert ended.exit_code == 1
    assert columns(ended.stdout)[-1] == "note"
    assert "something to know" in ended.stdout
    assert "skipped: in memory" in ended.stdout
    assert ended.stderr.endswith("node: job j was lost\n")
    assert ended.stdout.splitlines()[-1].startswith("guarantees were violated: 109 jobs acknowledged, 108 done; 1")


def test_json_has_no_sentence(drill: RunDrill) -> None:
    """A script gets one object, and nothing else."""
    assert json.loads(drill([WELL], "--json").stdout)["scenarios"][0]["done"] == 100
