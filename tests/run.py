"""Runs all tests in rows and prints one summary at the end: `make test`, `python -m tests.run [ROW …]`.

A row is one pytest process; the markers of pyproject.toml decide which test belongs to which row. Two rows start at
once: `hosts`, which mostly waits for Ray, and `others`, which gives way to it. The rest follows: all rows at once
starved one another. `leases` runs in one process, because leases expire on a machine that is busier than its
processors. `own_grid` and `documents` mostly wait for Ray, each for one grid at a time. `computing` gets the processor
time that the others leave. `hostile` ends with a measurement of how long good jobs wait beside hostile ones, when the
other rows have ended.

The complete output of each row is in `.test-logs/`. The exit code is 1 if a row failed or ran no test.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
LOGS = ROOT / ".test-logs"
SUMMARY_LINE = re.compile(r"^=+ .*\bin [0-9.]+s.* =+$")
REMINDER_S = 60.0
GRACE_S = 30.0  # for the fixtures of an interrupted row, which end their grids


@dataclass(frozen=True, slots=True)
class Row:
    """One pytest process.

    Attributes:
        name: the marker of its tests, or a name if `marker` is given.
        directory: where its tests are; others are not even read.
        after: the row that has to end before this one starts.
        niceness: how far it gives way to other rows.
        marker: the marker expression, if it is not the name.
        options: further options of pytest.
    """

    name: str
    directory: str = "tests"
    after: str | None = None
    niceness: int = 0
    marker: str = ""
    options: tuple[str, ...] = ()

    def command(self) -> list[str]:
        """The command that runs the row."""
        pytest = [sys.executable, "-m", "pytest", "-m", self.marker or self.name, f"--junitxml={self.report}"]
        return ["nice", "-n", str(self.niceness), *pytest, *self.options, self.directory]

    @property
    def log(self) -> Path:
        """The output of the row."""
        return LOGS / f"{self.name}.log"

    @property
    def report(self) -> Path:
        """What became of its tests, as JUnit XML."""
        return LOGS / f"{self.name}.xml"


MARKED = (
    Row("hosts", "tests/faults"),
    Row("ray", "tests/integration", after="hosts"),
    Row("own_grid", "tests/integration", after="others"),
    Row("documents", "tests/integration", after="others"),
    Row("leases", "tests/integration", after="others"),
    Row("hostile", "tests/hostile", after="ray"),
    Row("computing", "tests/unit", after="others", niceness=19),
)
OTHERS = Row(
    "others",
    niceness=5,
    marker=f"not ({' or '.join(row.name for row in MARKED)})",
    # In the order of the directories: the long integration tests do not come last.
    # If xdist replaces a crashed worker, it can wait for ever; without a replacement the crash is a failed test.
    options=("-n", "4", "--dist", "loadfile", "--no-loadscope-reorder", "--max-worker-restart=0"),
)
ROWS = (*MARKED, OTHERS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row.

    Attributes:
        passed, failed, skipped: numbers of tests; an error of a fixture counts as failed.
        failures: the names of the failed tests.
        skips: how many tests were skipped for which reason.
        exit_code: that of pytest.
    """

    row: Row
    seconds: float
    exit_code: int
    passed: int
    failed: int
    skipped: int
    failures: tuple[str, ...]
    skips: Counter[str]

    @property
    def is_good(self) -> bool:
        """Whether there were tests and none failed; all may be skipped, as those on hosts are without root."""
        return self.exit_code == 0 and self.passed + self.skipped > 0 and self.failed == 0


def outcome_of(row: Row, seconds: float, exit_code: int) -> Outcome:
    """Read the report of a row that has ended; a row without a report has no tests."""
    passed, failures, skips = 0, [], Counter[str]()
    for case in _cases(row.report):
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        skip = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failures.append(name)
        elif skip is not None:
            skips[skip.get("message", "no reason given")] += 1
        else:
            passed += 1
    return Outcome(row, seconds, exit_code, passed, len(failures), skips.total(), tuple(failures), skips)


def _cases(report: Path) -> list[ElementTree.Element]:
    try:
        return list(ElementTree.parse(report).getroot().iter("testcase"))  # noqa: S314 (written by our own pytest)
    except (OSError, ElementTree.ParseError):
        return []


def summary_line(log: Path) -> str:
    """The last line of pytest, unchanged: programs that read the output look for it."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if SUMMARY_LINE.match(line)), "(no summary of pytest)")


def table(outcomes: Sequence[Outcome], seconds: float) -> str:
    """Counts and seconds of each row and in total, then the failures, then what was skipped and why."""
    line = "{:<12}{:>9}{:>9}{:>9}{:>9}".format
    counts = [(each.passed, each.failed, each.skipped) for each in outcomes]
    lines = [line("row", "passed", "failed", "skipped", "seconds")]
    lines += [line(each.row.name, *count, round(each.seconds)) for each, count in zip(outcomes, counts, strict=True)]
    lines.append(line("total", *(sum(column) for column in zip(*counts, strict=True)), round(seconds)))
    failures = [f"  {name}" for each in outcomes for name in each.failures]
    failures += [
        f"  row {each.row.name}: pytest ended with {each.exit_code}; see {each.row.log.relative_to(ROOT)}"
        for each in outcomes
        if not each.is_good and not each.failures
    ]
    if failures:
        lines += ["", "failed:", *failures]
    skips = sum((each.skips for each in outcomes), Counter[str]())
    if skips:
        lines += ["", "skipped:", *(f"  {count} tests: {reason}" for reason, count in skips.most_common())]
    return "\n".join(lines)


class Runner:
    """Starts rows when they may start, and owns their processes until they have ended."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._waiting = list(rows)
        self._running: dict[Row, tuple[subprocess.Popen[bytes], float]] = {}

    def run(self) -> list[Outcome]:
        """Run all rows; gives what became of them in the order in which they ended."""
        ended: list[Outcome] = []
        reminded = time.monotonic()
        while self._waiting or self._running:
            self.start_due()
            for outcome in self._ended():
                ended.append(outcome)
                show(outcome)
            if time.monotonic() - reminded > REMINDER_S:
                reminded = time.monotonic()
                print(f"still running: {', '.join(row.name for row in self._running)}", flush=True)
            time.sleep(0.2)
        return ended

    def start_due(self) -> None:
        """Start the rows that wait for no other row."""
        # Compiled modules are kept: hundreds of processes import them.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        unfinished = {row.name for row in (*self._waiting, *self._running)}
        for row in [row for row in self._waiting if row.after not in unfinished]:
            self._waiting.remove(row)
            row.report.unlink(missing_ok=True)
            with row.log.open("wb") as log:
                # A session of its own: Ctrl-C at the terminal reaches this process alone, which ends the rows in order.
                process = subprocess.Popen(
                    row.command(),
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._running[row] = process, time.monotonic()
            print(f"started row {row.name}", flush=True)

    def _ended(self) -> Iterator[Outcome]:
        for row, (process, started) in list(self._running.items()):
            if (exit_code := process.poll()) is not None:
                del self._running[row]
                yield outcome_of(row, time.monotonic() - started, exit_code)

    def stop(self) -> None:
        """Interrupt the running rows, so that their fixtures clean up, and kill what is left after some seconds."""
        processes = [process for process, _ in self._running.values()]
        for process in processes:
            process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + GRACE_S
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def show(outcome: Outcome) -> None:
    """Print the last line of pytest in a row; its whole output, if the row has failed."""
    log = outcome.row.log
    text = summary_line(log) if outcome.is_good else log.read_text(encoding="utf-8", errors="replace").rstrip()
    print(f"row {outcome.row.name}:", text, sep="\n", flush=True)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(number)


def main(words: Sequence[str] | None = None) -> int:
    """Run all rows, or those named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"only these: {', '.join(row.name for row in ROWS)}")
    names = parser.parse_args(words).rows or [row.name for row in ROWS]
    if unknown := set(names) - {row.name for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    LOGS.mkdir(exist_ok=True)
    started = time.monotonic()
    runner = Runner([row for row in ROWS if row.name in names])
    try:
        outcomes = runner.run()
    except KeyboardInterrupt as interrupt:
        print("interrupted; ending the running rows", file=sys.stderr, flush=True)
        return 128 + int(interrupt.args[0])
    finally:
        runner.stop()
    outcomes.sort(key=lambda each: names.index(each.row.name))
    print("", table(outcomes, time.monotonic() - started), sep="\n")
    return 0 if all(each.is_good for each in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
