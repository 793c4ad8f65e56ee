"""How `make test` sums up the reports of its rows, and what it does on an interrupt."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests import run
from tests.run import Outcome, Row, Runner, outcome_of, summary_line, table

NO_DATA = "no reference data at /data; set RAYGRID_REFERENCE_DATA to where it is"


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs and reports go to the test's own directory."""
    monkeypatch.setattr(run, "LOGS", tmp_path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a row needs none of them, and starts faster
    return tmp_path


def row_of(directory: Path, test: str) -> Row:
    """A row of one small test file."""
    (directory / "test_small.py").write_text(test)
    return Row("small", str(directory), marker="not other", options=("-c", "/dev/null", "-p", "no:cacheprovider"))


TESTS = """
import pytest
def test_good(): pass
def test_bad(): assert "seen" == "wanted"
@pytest.mark.parametrize("n", [1, 2])
def test_skipped(n): pytest.skip("no network")
@pytest.fixture
def broken(): raise OSError("no disk")
def test_with_broken_fixture(broken): pass
"""


@pytest.mark.processes
def test_a_failed_row_is_reported_in_full(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its tests are counted, its failures are printed in full and named, and pytest's last line is unchanged."""
    [outcome] = Runner([row_of(logs, TESTS)]).run()

    assert (outcome.exit_code, outcome.passed, outcome.failed, outcome.skipped) == (1, 1, 2, 2)
    assert outcome.failures == ("test_small::test_bad", "test_small::test_with_broken_fixture")
    assert outcome.skips == {"no network": 2}
    assert not outcome.is_good
    printed = capsys.readouterr().out
    assert "AssertionError: assert 'seen' == 'wanted'" in printed
    assert "OSError: no disk" in printed
    last = printed.splitlines()[-1]
    assert last.startswith("====")
    assert "1 failed, 1 passed, 2 skipped, 1 error in" in last


@pytest.mark.processes
@pytest.mark.parametrize("test", ["", "def test_broken(:"], ids=["no test", "a syntax error"])
def test_a_row_that_runs_no_test_has_failed(logs: Path, test: str) -> None:
    """An empty selection, or modules that cannot be imported, are not a success."""
    [outcome] = Runner([row_of(logs, test)]).run()

    assert outcome.passed == 0
    assert not outcome.is_good


@pytest.mark.processes
def test_a_row_that_is_skipped_has_not_failed(logs: Path) -> None:
    """As the tests on hosts of their own are without root."""
    [outcome] = Runner([row_of(logs, "import pytest\ndef test_on_hosts(): pytest.skip('only as root')")]).run()

    assert (outcome.skipped, outcome.is_good) == (1, True)


@pytest.mark.processes
def test_a_row_starts_when_the_row_before_it_has_ended(logs: Path) -> None:
    """Rows that follow no other one start at once."""
    for name, test in (
        ("late", "assert (here / 'early').exists()"),
        ("early", "time.sleep(0.5); (here / 'early').touch()"),
    ):
        (logs / name).mkdir()
        script = f"import pathlib, time\nhere = pathlib.Path(__file__).parents[1] / 'seen'\ndef test(): {test}"
        (logs / name / f"test_{name}.py").write_text(script)
    (logs / "seen").mkdir()
    options = ("-c", "/dev/null", "-p", "no:cacheprovider")
    late = Row("late", str(logs / "late"), after="early", marker="not other", options=options)
    early = Row("early", str(logs / "early"), marker="not other", options=options)

    outcomes = Runner([late, early]).run()

    assert [(outcome.row.name, outcome.is_good) for outcome in outcomes] == [("early", True), ("late", True)]


@pytest.mark.processes
def test_an_interrupted_row_cleans_up(logs: Path) -> None:
    """The fixtures of the running test end, and so does its process."""
    test = """
import pathlib, pytest, time
here = pathlib.Path(__file__).parent
@pytest.fixture
def grid():
    yield
    (here / "down").touch()
def test_long(grid):
    (here / "up").touch()
    time.sleep(600)
"""
    runner = Runner([row_of(logs, test)])
    runner.start_due()
    deadline = time.monotonic() + 60
    while not (logs / "up").exists():
        assert time.monotonic() < deadline, (logs / "small.log").read_text()
        time.sleep(0.05)

    runner.stop()

    assert (logs / "down").exists()


def test_a_row_without_a_report_has_failed(logs: Path) -> None:
    """For example when pytest itself was killed."""
    outcome = outcome_of(Row("hosts"), 3.0, -9)

    assert not outcome.is_good
    assert "row hosts: pytest ended with -9; see hosts.log" in table([outcome], 3.0)


def test_the_table_shows_counts_then_failures_then_skips() -> None:
    """Each reason to skip is one line with the number of tests, over all rows."""
    outcomes = [
        Outcome(Row("hosts"), 61.4, 0, 40, 0, 9, (), Counter({"only as root": 9})),
        Outcome(Row("others"), 100.6, 1, 4_000, 1, 12, ("a::test_b",), Counter({NO_DATA: 11, "only as root": 1})),
    ]

    assert table(outcomes, 101.2).splitlines() == [
        "row            passed   failed  skipped  seconds",
        "hosts              40        0        9       61",
        "others           4000        1       12      101",
        "total            4040        1       21      101",
        "",
        "failed:",
        "  a::test_b",
        "",
        "skipped:",
        f"  11 tests: {NO_DATA}",
        "  10 tests: only as root",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "==== 4522 passed, 3 skipped, 72 warnings in 679.42s (0:11:19) ====",
        "======= no tests ran in 0.01s =======",
    ],
)
def test_the_last_line_of_pytest_is_found(logs: Path, line: str) -> None:
    """Also if a process that outlived the tests has written below it."""
    (logs / "a.log").write_text(f"==== warnings summary ====\n{line}\nkilled\n")
    assert summary_line(logs / "a.log") == line
