"""Write an example book of instrument files: `python book.py DIR [--files N] [--instruments M] [--seed S]`.

Each file belongs to one desk and holds a mixture of its kinds with plausible terms; eight files or more hold
every desk. The same seed gives the same bytes, whatever the number of files. Standard library only: nothing
is priced here, the files are input for `price.py`.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

COLUMNS = ("id", "kind", "type", "strike", "spot", "q", "r", "t", "vol", "extra")


@dataclass(frozen=True, slots=True)
class Base:
    """The plain columns of an instrument, drawn before its kind adds its own terms."""

    type: str
    spot: float
    strike: float
    q: float
    r: float
    t: float
    vol: float


@dataclass(frozen=True, slots=True)
class Terms:
    """What a kind adds: the terms for `extra`, and plain columns that it leaves empty or replaces."""

    extra: Mapping[str, object]
    type: bool = True
    strike: bool = True
    q: float | None = None
    t: float | None = None


Draw = Callable[[Random, Base], Terms]


def _no_terms(_random: Random, _base: Base) -> Terms:
    return Terms({})


def _engine(name: str) -> Draw:
    return lambda _random, _base: Terms({"engine": name})


def _side_of_barrier(random: Random, base: Base) -> dict[str, object]:
    """A barrier on the far side of the spot, in or out."""
    if random.random() < 0.5:
        return {
            "barrierType": random.choice(("DownIn", "DownOut")),
            "barrier": round(base.spot * random.uniform(0.75, 0.95), 2),
        }
    return {
        "barrierType": random.choice(("UpIn", "UpOut")),
        "barrier": round(base.spot * random.uniform(1.05, 1.25), 2),
    }


def _barrier(random: Random, base: Base) -> Terms:
    return Terms(_side_of_barrier(random, base) | {"rebate": random.choice((0, 1, 3))})


def _double_barrier(random: Random, base: Base) -> Terms:
    return Terms(
        {
            "barrierType": random.choice(("KnockIn", "KnockOut")),
            "barrierLo": round(base.spot * random.uniform(0.6, 0.84), 2),
            "barrierHi": round(base.spot * random.uniform(1.16, 1.4), 2),
        }
    )


def _cash_or_asset(random: Random) -> dict[str, object]:
    if random.random() < 0.5:
        return {"payoff": "CashOrNothing", "cash": random.choice((5, 10, 15))}
    return {"payoff": "AssetOrNothing"}


def _binary_barrier(random: Random, base: Base) -> Terms:
    return Terms(_cash_or_asset(random) | _side_of_barrier(random, base))


def _digital(random: Random, base: Base) -> Terms:
    if random.random() < 0.3:
        return Terms({"payoff": "Gap", "secondStrike": round(base.strike * random.uniform(0.95, 1.05), 2)})
    return Terms(_cash_or_asset(random))


def _digital_american(random: Random, _base: Base) -> Terms:
    knock_in = random.choice((0, 1))
    pay_at_expiry = 1 if knock_in == 0 else random.choice((0, 1))
    return Terms(_cash_or_asset(random) | {"payAtExpiry": pay_at_expiry, "knockIn": knock_in})


def _extreme(random: Random, base: Base, highest: bool) -> float:
    """The running extreme of the spot: often today's, else further out."""
    if random.random() < 0.3:
        return base.spot
    return round(base.spot * (random.uniform(1.01, 1.2) if highest else random.uniform(0.8, 0.99)), 2)


def _lookback_floating(random: Random, base: Base) -> Terms:
    return Terms({"minmax": _extreme(random, base, highest=base.type == "Put")}, strike=False)


def _lookback_fixed(random: Random, base: Base) -> Terms:
    return Terms({"minmax": _extreme(random, base, highest=base.type == "Call")})


def _lookback_partial_floating(random: Random, base: Base) -> Terms:
    first = round(base.t * random.uniform(0.25, 0.75), 4)
    extreme = _extreme(random, base, highest=base.type == "Put")
    return Terms({"minmax": extreme, "t1": first, "lambda": 1}, strike=False)


def _lookback_partial_fixed(random: Random, base: Base) -> Terms:
    return Terms({"t1": round(base.t * random.uniform(0.25, 0.75), 4)})


def _asian_geometric(_random: Random, _base: Base) -> Terms:
    return Terms({"average": "Geometric", "monitoring": "continuous"})


def _asian_levy(random: Random, base: Base) -> Terms:
    length = random.choice((90, 180, 270, 360))
    elapsed = random.choice((0, length // 3, 2 * length // 3))
    average = base.spot if elapsed == 0 else round(base.spot * random.uniform(0.95, 1.05), 2)
    terms = {"average": "Arithmetic", "currentAverage": average, "lengthDays": length, "elapsedDays": elapsed}
    return Terms(terms, t=round((length - elapsed) / 360, 6))


def _asian_discrete(random: Random, base: Base) -> Terms:
    first = round(base.t * random.uniform(0.02, 0.3), 6)
    return Terms(
        {
            "average": "Arithmetic",
            "fixings": random.choice((8, 12, 26, 52)),
            "firstFixing": first,
            "length": round(base.t - first, 6),
        }
    )


def _two_assets(random: Random, base: Base, basket: str, yield_: float) -> dict[str, object]:
    return {
        "basket": basket,
        "spot2": round(base.spot * random.uniform(0.8, 1.2), 2),
        "q2": yield_,
        "vol2": round(random.uniform(0.1, 0.5), 3),
        "rho": round(random.uniform(-0.5, 0.9), 2),
    }


def _basket2(random: Random, base: Base) -> Terms:
    basket = random.choice(("Min", "Max"))
    return Terms(_two_assets(random, base, basket, round(random.uniform(0.0, 0.05), 3)))


def _spread_kirk(random: Random, base: Base) -> Terms:
    return Terms(_two_assets(random, base, "Spread", 0.0), q=0.0)


def _compound(random: Random, base: Base) -> Terms:
    return Terms(
        {
            "motherType": random.choice(("Call", "Put")),
            "motherStrike": round(base.spot * random.uniform(0.05, 0.12), 2),
            "tMother": round(base.t * random.uniform(0.25, 0.6), 4),
        }
    )


def _chooser(random: Random, base: Base) -> Terms:
    terms = {
        "tChoose": round(base.t * random.uniform(0.2, 0.45), 4),
        "putStrike": round(base.strike * random.uniform(0.85, 0.95), 2),
        "tPut": round(base.t * random.uniform(0.95, 1.3), 4),
    }
    return Terms(terms, type=False)


def _forward_start(random: Random, base: Base) -> Terms:
    start = round(base.t * random.uniform(0.1, 0.5), 4)
    return Terms({"moneyness": round(random.uniform(0.9, 1.1), 2), "tStart": start}, strike=False)


def _quanto(random: Random, _base: Base) -> Terms:
    return Terms(
        {
            "fxRate": round(random.uniform(0.0, 0.06), 3),
            "fxVol": round(random.uniform(0.05, 0.15), 3),
            "rho": round(random.uniform(-0.5, 0.5), 2),
        }
    )


DESKS: Mapping[str, Mapping[str, Draw]] = {
    "vanilla": {"european": _no_terms, "american_baw": _engine("BaroneAdesiWhaley")},
    "american": {
        "american_bs93": _engine("BjerksundStensland"),
        "american_ju": _engine("JuQuadratic"),
        "american_fd": _engine("FiniteDifference"),
    },
    "barrier": {"barrier": _barrier, "double_barrier": _double_barrier, "binary_barrier": _binary_barrier},
    "digital": {"digital": _digital, "digital_american": _digital_american},
    "lookback": {
        "lookback_floating": _lookback_floating,
        "lookback_fixed": _lookback_fixed,
        "lookback_partial_floating": _lookback_partial_floating,
        "lookback_partial_fixed": _lookback_partial_fixed,
    },
    "asian": {
        "asian_geometric_cont": _asian_geometric,
        "asian_arith_levy": _asian_levy,
        "asian_arith_disc": _asian_discrete,
        "asian_arith_tw": _asian_discrete,
    },
    "multi": {"basket2": _basket2, "spread_kirk": _spread_kirk, "quanto": _quanto},
    "exotic": {"compound": _compound, "chooser_complex": _chooser, "forward_start": _forward_start},
}


def write_book(directory: Path, files: int, instruments: int, seed: int) -> list[Path]:
    """Write `files` CSV files of `instruments` rows each into `directory`; their paths, in order.

    The files are named after their number and desk, and a file's content depends on `seed`, its number and
    `instruments` alone. Existing files of these names are replaced.
    """
    directory.mkdir(parents=True, exist_ok=True)
    desks = list(DESKS)
    written: list[Path] = []
    for number in range(1, files + 1):
        desk = desks[(number - 1) % len(desks)]
        path = directory / f"book-{number:04d}-{desk}.csv"
        _write_file(path, f"{number:04d}", DESKS[desk], instruments, Random(f"{seed}/{number}"))
        written.append(path)
    return written


def _write_file(path: Path, prefix: str, draws: Mapping[str, Draw], instruments: int, random: Random) -> None:
    names = list(draws)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number in range(instruments):
            # the first rows hold every kind of the desk once, the rest is drawn
            kind = names[number] if number < len(names) else random.choice(names)
            writer.writerow([f"{prefix}-{number + 1:03d}", kind, *_cells(random, draws[kind])])


def _cells(random: Random, draw: Draw) -> list[object]:
    spot = round(random.uniform(20.0, 200.0), 2)
    base = Base(
        type=random.choice(("Call", "Put")),
        spot=spot,
        strike=round(spot * random.uniform(0.85, 1.15), 2),
        q=round(random.uniform(0.0, 0.05), 3),
        r=round(random.randrange(5, 80) / 1000 + 0.0005, 4),  # never equal to q, as lookbacks need
        t=round(random.uniform(0.25, 2.0), 2),
        vol=round(random.uniform(0.1, 0.5), 3),
    )
    terms = draw(random, base)
    return [
        base.type if terms.type else "",
        base.strike if terms.strike else "",
        base.spot,
        base.q if terms.q is None else terms.q,
        base.r,
        base.t if terms.t is None else terms.t,
        base.vol,
        ";".join(f"{name}={value}" for name, value in terms.extra.items()),
    ]


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write an example book of instrument files.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="made if it does not exist")
    parser.add_argument("--files", type=_positive, default=40, metavar="N", help="default: %(default)s")
    parser.add_argument("--instruments", type=_positive, default=25, metavar="M", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="default: %(default)s")
    options = parser.parse_args(arguments)
    written = write_book(options.directory, options.files, options.instruments, options.seed)
    print(f"{len(written)} files of {options.instruments} instruments in {options.directory}")


if __name__ == "__main__":
    main()
