"""`python -m bench`: run the workloads, print the tables, write JSON; exits with 1 if a goal was missed."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.contenders import MODULES as CONTENDERS
from bench.figures import AT_ONCE, Measured, Plan
from bench.goals import judge
from bench.report import show, write_json
from bench.workloads import MODULES as WORKLOADS
from bench.workloads import load

QUICK = frozenset({"xargs", "threads", "raygrid"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the options say; gives the exit code."""
    options = _options().parse_args(arguments)
    done = []
    with tempfile.TemporaryDirectory(prefix="raygrid-bench-", ignore_cleanup_errors=True) as scratch:
        plan = Plan(
            Path(scratch),
            rounds=1 if options.quick else options.rounds,
            size=0.01 if options.quick else options.size,
            at_once=options.at_once,
            only=frozenset(options.only) or (QUICK if options.quick else frozenset()),
            profile=options.profile,
        )
        for number in options.workload or sorted(WORKLOADS):
            workload = load(number)
            measured = Measured(number, workload.title, tuple(workload.measure(plan)))
            verdicts = [] if options.quick else judge(measured)
            show(measured, verdicts)
            done.append((measured, verdicts))
            write_json(options.json, plan, done)  # after each: an interrupted run has told what it knows
    return 1 if any(verdict.reached is False for _, verdicts in done for verdict in verdicts) else 0


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
