"""`python -m field`: run the cases, print the table; exits with 1 if anything is wrong."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import field.cases  # noqa: F401 - registers the cases
from field.account import RIGHT, SKIPPED, WRONG, Account, print_head
from field.case import CASES, Case, Lane
from field.desk import Desk


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the chosen cases; returns the exit code."""
    options = _options().parse_args(arguments)
    if options.list:
        for each in CASES.values():
            print(f"{each.name:18} {each.title}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends everything that was started
    chosen = [each for each in CASES.values() if not options.only or each.name in options.only]
    began = time.monotonic()
    print_head()
    with tempfile.TemporaryDirectory(prefix="rg-field-", ignore_cleanup_errors=True) as scratch:
        desk = Desk(Path(scratch), options.raygrid, options.port, options.jobs)
        try:
            accounts = _run_all(chosen, desk)
        finally:
            desk.close()
    count = {verdict: sum(each.count(verdict) for each in accounts) for verdict in (RIGHT, WRONG, SKIPPED)}
    print(f"\n{', '.join(f'{count[verdict]} {verdict}' for verdict in count)}; {time.monotonic() - began:.0f} s")
    return 1 if count[WRONG] else 0


def _run_all(cases: Sequence[Case], desk: Desk) -> list[Account]:
    """Run two lanes side by side, because a grid that starts or ends mostly waits, and the last lane after them."""
    accounts: list[Account] = []

    def run_lane(lane: Lane) -> None:
        for each in cases:
            if each.lane is lane and not desk.is_closed:
                accounts.append(_run(each, desk))

    # Daemon threads, so that a run that is stopped by a signal does not wait for them.
    lanes = [threading.Thread(target=run_lane, args=(lane,), daemon=True) for lane in (Lane.SHARED, Lane.OWN)]
    for each in lanes:
        each.start()
    for each in lanes:
        each.join()
    run_lane(Lane.ALONE)
    return accounts


def _run(each: Case, desk: Desk) -> Account:
    """Run one case; an exception becomes a wrong row, and the other cases still run."""
    account = Account(each.name)
    if missing := [tool.missing for tool in each.tools if not tool.found()]:
        account.skip(each.title, "; ".join(missing))
        return account
    began = time.monotonic()
    try:
        each.run(desk, account)
    except Exception as error:
        traceback.print_exc()
        account.check(each.title, f"{type(error).__name__}: {error}", right=False)
    print(f"{each.name}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    return account


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m field", description=__doc__)
    parser.add_argument("--only", action="append", choices=CASES, metavar="CASE", help="one case; repeatable")
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--jobs", type=int, default=400, help="jobs of the case `pinned` (default: %(default)s)")
    parser.add_argument(
        "--raygrid", type=Path, help="directory of the copy of raygrid to try; by default the installed one"
    )
    parser.add_argument("--port", type=int, help="first port to listen on; by default free ones")
    return parser


if __name__ == "__main__":
    sys.exit(main())
