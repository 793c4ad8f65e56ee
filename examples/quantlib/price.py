"""Price a CSV file of instruments with QuantLib: `python price.py INPUT.csv [--output prices.csv]`.

This file is the command line: arguments, messages, exit codes and the output file. Reading is in
`instruments.py`, the kinds in `kinds.py`, prices and sensitivities in `valuation.py`. It is a warm pricer as well: with
`mode: warm` and the command `python price.py`, one process prices file after file.
Exit codes: 0 all rows priced, 1 output not writable, 2 bad input, 3 QuantLib failed.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name
from instruments import BadInstrumentError, Instrument, read_instruments
from kinds import build
from market import TODAY, flat_market
from valuation import PricingFailedError, Valuation, value

from raygrid.pricer import serve

OUTPUT_COLUMNS = ("id", "kind", "price", "delta", "gamma", "vega", "theta", "rho", "engine")
OK, UNWRITABLE, BAD_INPUT, PRICING_FAILED = 0, 1, 2, 3


def price_all(instruments: Sequence[Instrument]) -> list[Valuation]:
    """The valuations of `instruments`, in order.

    Raises BadInstrumentError, or if no row is bad PricingFailedError, with a line for each row concerned.
    """
    ql.Settings.instance().evaluationDate = TODAY
    market = flat_market()
    valuations: list[Valuation] = []
    bad: list[str] = []
    failed: list[str] = []
    for row in instruments:
        market.move_to(row.spot, row.q, row.r, row.vol)
        try:
            valuations.append(value(build(row, market), market))
        except BadInstrumentError as error:
            bad.append(str(error))
        except RuntimeError as error:  # PricingFailedError, or QuantLib's own from building the contract
            failed.append(f"{row.where}: {row.id} ({row.kind}): QuantLib: {error}")
    if bad:
        raise BadInstrumentError("\n".join(bad))
    if failed:
        raise PricingFailedError("\n".join(failed))
    return valuations


def write_prices(path: Path, instruments: Sequence[Instrument], valuations: Sequence[Valuation]) -> None:
    """Write the output file `path` in one step: a reader sees all of it or none."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    file = temporary.open("w", newline="", encoding="utf-8")
    try:
        with file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(OUTPUT_COLUMNS)
            writer.writerows(map(_cells, instruments, valuations))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _cells(row: Instrument, found: Valuation) -> list[str]:
    numbers = (found.price, found.delta, found.gamma, found.vega, found.theta, found.rho)
    texts = ["" if number is None else format(number, ".12g") for number in numbers]
    return [row.id, row.kind, *texts, found.engine]


@cache  # a warm pricer runs `main` for every file
def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Price a CSV file of instruments with QuantLib.")
    parser.add_argument("input", type=Path, metavar="INPUT.csv", help="the instruments, one a row")
    parser.add_argument("--output", type=Path, default=Path("prices.csv"), help="default: %(default)s")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = _command_line().parse_args(arguments)
    try:
        instruments = read_instruments(options.input)
        valuations = price_all(instruments)
        write_prices(options.output, instruments, valuations)
    except BadInstrumentError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    except PricingFailedError as error:
        print(error, file=sys.stderr)
        return PRICING_FAILED
    except OSError as error:
        print(f"{options.output}: cannot write: {error.strerror}", file=sys.stderr)
        return UNWRITABLE
    return OK


if __name__ == "__main__":
    serve(lambda job: main([str(job.input), *job.args]))
