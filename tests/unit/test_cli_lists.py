"""Lists of commands on a terminal: what identifies a row is whole at 80 columns, and a note names what is not shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from raygrid.cli import app, grid
from raygrid.cli.columns import lay_out
from tests.support.client_fakes import Answers, FakeTime

AT = "2030-01-02T03:04:05.678Z"
ID = "0198f4a2-7b6e-7cc1-9d0a-1f2e3d4c5b6a"
LEADER = "0123456789abcdef" * 3
JOB = {
    "jobId": ID,
    "state": "failed",
    "reason": "exit_code",
    "submitted_at": AT,
    "input_name": "trades.csv",
    "pricer": "desk",
    "node": "rack-a-1",
    "attempts": 1,
    "message": "no curve " * 9,
}
BATCH = {
    "batchId": ID,
    "total": 1_193,
    "finished": False,
    "counts": {"queued": 100, "running": 8, "done": 1_000, "failed": 83, "cancelled": 2},
    "submitted_at": AT,
}
GROUP = {
    "group": "rack-a",
    "slots": 8,
    "running": 3,
    "free": 5,
    "queued": 1_200,
    "nodes": 2,
    "leader": LEADER,
    "term": 3,
}
KEY = {
    "id": "abcdefghij",
    "owner": "rates",
    "roles": ["admin", "data", "operate", "read", "submit"],
    "pricers": ["desk"],
    "valid": True,
    "expires_at": AT,
    "created_by": "operator",
    "replaces": "0123456789",
}
DATA = {"name": "market", "digest": "ab" * 32, "size": 1_234, "stored_at": AT, "owner": "rates"}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAYGRID_URL", "http://grid.test")
    monkeypatch.setenv("RAYGRID_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "80")


def run(monkeypatch: pytest.MonkeyPatch, words: str, **body: Any) -> Result:
    """Run the command line against one answer."""
    answers = Answers(httpx.Response(200, json=body))
    monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key))
    return CliRunner().invoke(app, words.split())


LISTS: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("jobs", {"jobs": [JOB]}, [ID, "failed", "exit_code", "trades.csv"], ["submitted_at", "pricer", "node"]),
    ("batches", {"batches": [BATCH]}, [ID, "100", "8", "1000", "83", "2"], ["submitted_at", "jobs"]),
    ("groups", {"groups": [GROUP]}, ["rack-a", "2", "8", "3", "1200", "ok"], ["leader"]),
    ("keys list", {"keys": [KEY]}, ["abcdefghij", "rates", "valid", "2030-01-02T03:04Z"], ["roles", "created_by"]),
    ("data list", {"data": [DATA]}, ["market", "1,234", "2030-01-02T03:04:05Z", "rates", "ab" * 8], []),
]


@pytest.mark.parametrize(("words", "body", "shown", "reduced"), LISTS, ids=[words for words, *_ in LISTS])
def test_a_row_is_one_line_of_80_columns(
    monkeypatch: pytest.MonkeyPatch, words: str, body: dict[str, Any], shown: list[str], reduced: list[str]
) -> None:
    """Ids and states are whole; a note names what is left out, and how to see it."""
    ended = run(monkeypatch, words, **body)
    names, line = ended.stdout.splitlines()
    assert max(len(names), len(line)) <= 80
    assert [cell for cell in line.split() if not cell.endswith("…")][: len(shown)] == shown
    assert ended.stderr.count("\n") == (1 if reduced else 0)
    for name in reduced:
        assert name in ended.stderr
    assert not reduced or "a wider terminal or --json shows all" in ended.stderr


@pytest.mark.parametrize(("words", "body"), [each[:2] for each in LISTS], ids=[words for words, *_ in LISTS])
def test_a_pipe_gets_every_column(monkeypatch: pytest.MonkeyPatch, words: str, body: dict[str, Any]) -> None:
    """It has no right edge, so nothing is left out and no note is printed."""
    monkeypatch.delenv("COLUMNS")
    ended = run(monkeypatch, words, **body)
    assert ended.stderr in ("", "reading the list of jobs\n")
    [row] = next(iter(body.values()))
    for name in ("message", "leader", "created_by", "replaces", "input_name"):
        assert str(row.get(name, "")).strip() in ended.stdout


@pytest.mark.parametrize("words", ["groups", "keys list", "data list"])
def test_an_empty_list_is_a_note(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """No heading without rows is printed."""
    ended = run(monkeypatch, words, groups=[], keys=[], data=[])
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr.startswith("no ")


def test_the_note_of_a_batch_names_the_command_that_shows_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """`raygrid status --batch B --json` has only counts."""
    answers = Answers(httpx.Response(200, json=BATCH), httpx.Response(200, json={"jobs": [JOB]}))
    monkeypatch.setattr(grid, "Client", lambda url, key: answers.client(FakeTime(), key))
    ended = CliRunner().invoke(app, ["status", "--batch", "b"])
    assert "a wider terminal or raygrid jobs --batch b --json shows all" in ended.stderr


def test_audit_shows_what_a_request_was_about(tmp_path: Path) -> None:
    """At 80 columns the job is shown beside time, owner and status, and the note names what is left out."""
    entry: dict[str, Any] = {
        "time": AT,
        "request": "0123456789abcdef",
        "key": "abcdefghij",
        "owner": "rates",
        "address": "10.1.2.3",
    }
    entry |= {"action": "GET /batches/{batchId}/results", "path": "/x", "status": 200, "job": "trade-2026-11-30-17"}
    (tmp_path / "audit.log").write_text(json.dumps(entry) + "\n")
    ended = CliRunner().invoke(app, ["audit", "--logs", str(tmp_path)])
    _, line = ended.stdout.splitlines()
    assert len(line) <= 80
    for cell in ("2030-01-02T03:04:05Z", "rates", "200", "GET /", "trade-2026-11-30-17"):
        assert cell in line
    assert ended.stderr == "left out or cut: action, address, request; a wider terminal or --json shows all\n"


def test_columns_are_left_out_in_the_given_order_only_while_the_line_is_too_long() -> None:
    """The first dispensable column goes first; what fits afterwards stays."""
    wanted = {"id": 10, "a": 5, "b": 5}
    assert lay_out(wanted, 24, dispensable=("a", "b")).widths == wanted
    assert lay_out(wanted, 23, dispensable=("a", "b")).widths == {"id": 10, "b": 5}
    assert lay_out(wanted, 23, dispensable=("b", "a")).reduced == ("b",)


def test_shortened_columns_share_the_rest_of_the_line() -> None:
    """Each has at least its least width; the first one grows first, to its widest value at most."""
    wanted = {"id": 10, "a": 20, "b": 20}
    found = lay_out(wanted, 40, shortened={"a": 8, "b": 8})
    assert (found.widths, found.reduced) == ({"id": 10, "a": 18, "b": 8}, ("a", "b"))
    assert lay_out(wanted, 54, shortened={"a": 8, "b": 8}).reduced == ()
    assert lay_out({"id": 10, "a": 3}, 80, shortened={"a": 8}).widths["a"] == 3


def test_a_column_beyond_the_end_of_the_line_is_named() -> None:
    """The line is cut there, because nothing more can be left out."""
    assert lay_out({"id": 10, "a": 5}, 12).reduced == ("a",)
