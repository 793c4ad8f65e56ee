"""Run the Open Source Risk Engine (ORE) on a ZIP file: `python run_ore.py INPUT.zip`.

The ZIP holds a folder `Input` with `ore.xml` and the files it names. ORE runs in the current directory and
leaves its results where `ore.xml` says (as a rule `Output/`); the unpacked `Input` is removed again.
Exit codes: 0 success, 2 unusable input, 3 ORE failed; the reason is on stderr.

A trade that ORE cannot build fails the run, since ORE prices the others as if it were not there. With
`--accept-incomplete` the run succeeds without such trades, and `missing_trades.csv` lists them; it is empty but for
its header when none is missing.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from archive import INPUT_FOLDER, BadArchiveError, unpack
from verdict import Verdict, judge

OK, BAD_INPUT, ORE_FAILED = 0, 2, 3
STRUCTURED_LOG = "log_structured.json"
MISSING_TRADES = "missing_trades.csv"


class OreFailedError(RuntimeError):
    """ORE raised an error instead of running; the text is ORE's own."""


def run_ore(here: Path, *, accept_incomplete: bool = False) -> Verdict:
    """Run ORE on `Input/ore.xml` below the current directory `here`; returns the verdict on its console and logs.

    Raises OreFailedError when ORE cannot start on ore.xml, BadArchiveError if it would write outside `here`.
    """
    import ORE  # type: ignore[import-untyped]  # ORE's wheel has no type information; slow to load, so late

    parameters = ORE.Parameters()
    try:
        parameters.fromFile(f"{INPUT_FOLDER}/ore.xml")
        output = Path(_within(here, parameters.getString("setup", "outputPath")))
        structured_log = Path(_within(here, str(output / _structured_log_name(parameters))))
        structured_log.unlink(missing_ok=True)  # ORE writes it only if there are messages
    except RuntimeError as error:
        raise OreFailedError(f"{INPUT_FOLDER}/ore.xml: {error}") from None
    try:
        app = ORE.OREApp(parameters, True)
        console = with_console_text(app.run)
        messages = list(app.getErrors())
        portfolio = app.getInputs().portfolio()
        trades = frozenset(portfolio.ids()) if portfolio is not None else frozenset()
    except RuntimeError as error:
        raise OreFailedError(str(error)) from None
    if structured_log.is_file():
        messages = structured_log.read_text(encoding="utf-8", errors="replace").splitlines() + messages
    print(_without_progress_bars(console), end="")
    return judge(console, messages, accept_incomplete=accept_incomplete, trades=trades)


def _write_missing(path: Path, verdict: Verdict) -> None:
    """List the trades that the results do not have."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("trade", "type", "reason"))
        writer.writerows(verdict.missing)


def with_console_text(run: Callable[[], object]) -> str:
    """Call `run`; the text that it has written to the process's standard output from outside Python."""
    sys.stdout.flush()
    with tempfile.TemporaryFile() as capture:
        standard_output = os.dup(1)
        os.dup2(capture.fileno(), 1)
        try:
            run()
        finally:
            os.dup2(standard_output, 1)
            os.close(standard_output)
        capture.seek(0)
        return capture.read().decode("utf-8", errors="replace")


def _without_progress_bars(console: str) -> str:
    """`console` with each line as a terminal would finally show it."""
    return "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in console.split("\n"))


def _within(here: Path, path: str) -> str:
    """`path`, which must lie in `here` and outlive the unpacked input. Raises BadArchiveError."""
    resolved = (here / path).resolve()
    unpacked = (here / INPUT_FOLDER).resolve()
    if not path or not resolved.is_relative_to(here.resolve()) or resolved.is_relative_to(unpacked):
        raise BadArchiveError(f"ore.xml: output path {path!r} must be in the current directory and not in Input")
    return path


def _structured_log_name(parameters: Any) -> str:
    """Where ORE puts its structured log: the parameter in the group Logging, or ORE's default."""
    if parameters.hasGroup("logging") and parameters.has("logging", "structuredLogFile"):
        return str(parameters.getString("logging", "structuredLogFile")) or STRUCTURED_LOG
    return STRUCTURED_LOG


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = argparse.ArgumentParser(description="Run the Open Source Risk Engine on a ZIP file.")
    parser.add_argument("input", type=Path, metavar="INPUT.zip", help="holds Input/ore.xml and its files")
    parser.add_argument(
        "--accept-incomplete",
        action="store_true",
        help=f"succeed without trades that ORE cannot build, and list them in {MISSING_TRADES}",
    )
    options = parser.parse_args(arguments)
    here = Path.cwd()
    try:
        unpacked = unpack(options.input, here)
        try:
            if not (unpacked / "ore.xml").is_file():
                raise BadArchiveError(f"{options.input}: no {INPUT_FOLDER}/ore.xml in it")
            verdict = run_ore(here, accept_incomplete=options.accept_incomplete)
            if options.accept_incomplete:
                _write_missing(here / MISSING_TRADES, verdict)
        finally:
            shutil.rmtree(unpacked)
    except BadArchiveError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except (OreFailedError, OSError) as error:
        print(f"ORE failed: {error}", file=sys.stderr)
        return ORE_FAILED
    for note in verdict.notes:
        print(f"ORE continued after: {note}", file=sys.stderr)
    for trade, kind, reason in verdict.missing:
        print(f"ORE left out: trade {trade} ({kind}): {reason}", file=sys.stderr)
    for failure in verdict.failures:
        print(f"ORE failed: {failure}", file=sys.stderr)
    return ORE_FAILED if verdict.failures else OK


if __name__ == "__main__":
    sys.exit(main())
