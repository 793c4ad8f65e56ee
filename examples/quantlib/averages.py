"""Kinds that pay on an average of the spot (Asian options)."""

from __future__ import annotations

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name
from contracts import Contract, Registry, european_exercise, vanilla
from instruments import MAX_YEARS, Instrument
from market import TODAY, Market, date_in, days

KINDS = Registry()


@KINDS.kind("asian_geometric_cont", "average monitoring")
def asian_geometric_cont(row: Instrument, market: Market) -> Contract:
    """Continuous geometric average price: formula of Kemna and Vorst (1990)."""
    row.choice("average", ("Geometric",))
    row.choice("monitoring", ("continuous",))
    option = ql.ContinuousAveragingAsianOption(ql.Average.Geometric, vanilla(row), european_exercise(row))
    return Contract(option, ql.AnalyticContinuousGeometricAveragePriceAsianEngine(market.process))


@KINDS.kind("asian_arith_levy", "average currentAverage lengthDays elapsedDays")
def asian_arith_levy(row: Instrument, market: Market) -> Contract:
    """Continuous arithmetic average price, begun `elapsedDays` ago: approximation of Levy (1992)."""
    row.choice("average", ("Arithmetic",))
    length = row.count("lengthDays", 1, days(MAX_YEARS))
    elapsed = row.count("elapsedDays", 0, length - 1)
    if length - elapsed != days(row.t):
        raise row.bad(f"t is {days(row.t)} days, but lengthDays less elapsedDays is {length - elapsed}")
    average = ql.QuoteHandle(ql.SimpleQuote(row.level("currentAverage")))
    option = ql.ContinuousAveragingAsianOption(
        ql.Average.Arithmetic, TODAY - elapsed, vanilla(row), european_exercise(row)
    )
    return Contract(option, ql.ContinuousArithmeticAsianLevyEngine(market.process, average))


def _fixing_dates(row: Instrument) -> list[ql.Date]:
    """`fixings` dates from `firstFixing`, evenly over `length` years."""
    fixings = row.count("fixings", 2, 1000)
    first = row.years("firstFixing", until=row.t)
    step = row.years("length", until=row.t) / (fixings - 1)
    dates = [date_in(first + number * step) for number in range(fixings)]
    if dates[-1] > date_in(row.t):
        raise row.bad("the last fixing (firstFixing + length) lies after t")
    return dates


def _asian_discrete(row: Instrument, market: Market) -> Contract:
    row.choice("average", ("Arithmetic",))
    option = ql.DiscreteAveragingAsianOption(
        ql.Average.Arithmetic, 0.0, 0, _fixing_dates(row), vanilla(row), european_exercise(row)
    )
    return Contract(option, ql.TurnbullWakemanAsianEngine(market.process))


@KINDS.kind("asian_arith_disc", "average fixings firstFixing length")
def asian_arith_disc(row: Instrument, market: Market) -> Contract:
    """Arithmetic average over fixing dates: approximation of Turnbull and Wakeman (1991)."""
    return _asian_discrete(row, market)


@KINDS.kind("asian_arith_tw", "average fixings firstFixing length")
def asian_arith_tw(row: Instrument, market: Market) -> Contract:
    """The same contract as asian_arith_disc, quoted by its approximation of Turnbull and Wakeman."""
    return _asian_discrete(row, market)
