"""What `make field` itself guarantees: table, exit code, skips, and that it tests raygrid from outside."""

from __future__ import annotations

import ast
import threading
from pathlib import Path

import pytest

import field.__main__ as command
from field.account import Account
from field.case import CASES, Case, Lane
from field.desk import Desk
from field.tools import Tool

FIELD = Path(command.__file__).parent
MISSING = Tool("nothing", "no such thing on this machine", lambda: False)


def run(monkeypatch: pytest.MonkeyPatch, *cases: Case) -> int:
    """Run these cases and no others."""
    monkeypatch.setattr(command, "CASES", {each.name: each for each in cases})
    return command.main([])


def right(_desk: Desk, account: Account) -> None:
    account.check("one | and\nanother", b"\xff\x00", right=True)


def wrong(_desk: Desk, account: Account) -> None:
    account.check("two", "x" * 500, right=False)


def broken(_desk: Desk, _account: Account) -> None:
    raise OSError("no grid")


def test_rows_fit_a_table_and_all_right_is_exit_code_zero(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row is one line of Markdown, whatever a grid answered."""
    assert run(monkeypatch, Case("a", "title", (), right)) == 0
    assert "| a | one \\| and another | \\xff\\u0000 | right |" in capsys.readouterr().out.splitlines()


def test_anything_wrong_is_exit_code_one_and_the_rest_still_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A case that breaks is a wrong row."""
    cases = [Case(name, f"title {name}", (), run) for name, run in (("a", wrong), ("b", broken), ("c", right))]
    assert run(monkeypatch, *cases) == 1
    printed = capsys.readouterr().out
    assert "| b | title b | OSError: no grid | WRONG |" in printed
    assert "1 right, 2 WRONG, 0 skipped" in printed


def test_cases_with_grids_of_their_own_run_beside_the_shared_grid_and_those_that_measure_the_machine_afterwards(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two cases of different lanes run at the same time; the last lane begins after both have ended."""
    together = threading.Barrier(2)
    ended: list[str] = []

    def meets(_desk: Desk, account: Account) -> None:
        together.wait(30)
        ended.append(account.case)
        right(_desk, account)

    def after(_desk: Desk, account: Account) -> None:
        account.check("those before", ended, right={"shared", "own"} <= set(ended))

    cases = [
        Case("alone", "title", (), after, Lane.ALONE),
        Case("shared", "title", (), meets),
        Case("own", "title", (), meets, Lane.OWN),
    ]
    assert run(monkeypatch, *cases) == 0
    assert "3 right, 0 WRONG, 0 skipped" in capsys.readouterr().out


def test_what_a_machine_lacks_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of the case runs, and it is not wrong."""
    assert run(monkeypatch, Case("a", "title", (MISSING,), broken)) == 0
    assert "| a | title | no such thing on this machine | skipped |" in capsys.readouterr().out


def test_raygrid_is_tested_from_outside() -> None:
    """Only programs in processes of their own import raygrid, so another copy can be tested."""
    for path in FIELD.rglob("*.py"):
        if "programs" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "raygrid" for name in names), path


def test_every_case_has_a_title_and_an_expectation() -> None:
    """In its title and in its docstring."""
    assert len(CASES) > 30
    for case in CASES.values():
        assert case.title
        assert case.run.__doc__
