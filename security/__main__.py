"""`python -m security`: run Schemathesis, fuzzers and audit, print one table; exits with 1 if anything is found."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from security import audit, fuzz, schemathesis_run
from security.fuzzers.target import NAMES
from security.row import Row, table

PARTS = ("schemathesis", "fuzz", "audit")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen parts; returns the exit code."""
    options = _options().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends everything that was started
    scratch = Path(tempfile.mkdtemp(prefix="rg-security-"))  # stays, because it has what was found
    chosen = options.only or PARTS
    rows: list[Row] = []
    if "audit" in chosen:
        rows += audit.audit()
    if "schemathesis" in chosen:
        rows += schemathesis_run.run(options.cases, scratch)
    if "fuzz" in chosen:
        rows += [fuzz.fuzz(name, options.seconds, scratch) for name in options.fuzzer or NAMES]
    print(f"\n{table(rows)}\n\nlogs and inputs that were found: {scratch}")
    return 0 if all(each.passed for each in rows) else 1


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m security", description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help="one part; repeatable")
    parser.add_argument("--cases", type=int, default=20_000, help="cases of Schemathesis (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=600, help="seconds of each fuzzer (default: %(default)s)")
    parser.add_argument("--fuzzer", action="append", choices=NAMES, metavar="NAME", help="one fuzzer; repeatable")
    return parser


if __name__ == "__main__":
    sys.exit(main())
