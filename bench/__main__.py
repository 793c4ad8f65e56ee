"""`python -m bench`: run the workloads, print the tables, write JSON; exits with 1 if a goal was missed."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from bench.contenders import MODULES as CONTENDERS
from bench.figures import AT_ONCE, Measured, Plan
from bench.goals import judge
from bench.report import show, write_json
from bench.workloads import MODULES as WORKLOADS
from bench.workloads import load
from raygrid.errors import RaygridError

QUICK = frozenset({"xargs", "threads", "raygrid"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen workloads; returns the exit code."""
    options = _options().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends everything that was started
    done = []
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as scratch:
        plan = Plan(
            Path(scratch),
            rounds=1 if options.quick else options.rounds,
            size=0.01 if options.quick else options.size,
            at_once=options.at_once,
            only=frozenset(options.only) or (QUICK if options.quick else frozenset()),
            profile=options.profile,
        )
        for number in options.workload or sorted(WORKLOADS):
            measured = _measured(number, plan)
            verdicts = [] if options.quick else judge(measured)
            show(measured, verdicts)
            done.append((measured, verdicts))
            write_json(options.json, plan, done)  # after each workload, for runs that are interrupted
    missed = any(verdict.reached is False for _, verdicts in done for verdict in verdicts)
    return 1 if missed or any(measured.broke for measured, _ in done) else 0


def _measured(number: int, plan: Plan) -> Measured:
    """The figures of a workload; if it fails, the others still run, and its goals are missed."""
    workload = load(number)
    try:
        return Measured(number, workload.title, tuple(workload.measure(plan)))
    except (RaygridError, RuntimeError, AssertionError, OSError, subprocess.SubprocessError) as error:
        traceback.print_exc()
        return Measured(number, workload.title, broke=f"{type(error).__name__}: {error}")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--workload", type=int, action="append", choices=sorted(WORKLOADS), help="by default all of them"
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken (default: %(default)s)")
    parser.add_argument(
        "--size", type=float, default=1.0, help="share of the full number of jobs (default: %(default)s)"
    )
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="processes at once (default: %(default)s)")
    parser.add_argument("--only", action="append", default=[], choices=CONTENDERS, help="a contender; repeatable")
    parser.add_argument("--quick", action="store_true", help="a smoke run: one tiny round, no peers, no goals")
    parser.add_argument("--profile", type=Path, help="directory for a profile of the grid's tiers in workload 1")
    parser.add_argument("--json", type=Path, default=Path("bench.json"), help="(default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
