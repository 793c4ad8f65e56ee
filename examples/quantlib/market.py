"""The flat market in which every instrument is priced, and how times in years become dates.

Conventions are those of the published tables: Actual/360 with times rounded to whole days (a year is 360
days), no calendar, continuously compounded flat rates, flat volatility. The valuation date is fixed, so that
the same file gives the same prices on any day. Used by `kinds.py`; `valuation.py` moves the quotes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name

DAYS_PER_YEAR = 360
TODAY = ql.Date(3, 1, 2000)
DAY_COUNTER = ql.Actual360()


def days(years: float) -> int:
    """`years` (not negative) as the nearest whole number of days."""
    return int(years * DAYS_PER_YEAR + 0.5)


def date_in(years: float) -> ql.Date:
    """The date `years` after the valuation date."""
    return _date_after(days(years))


@cache  # averages have dozens of dates, and instruments share them
def _date_after(number: int) -> ql.Date:
    return TODAY + number


def flat_rate(rate: ql.SimpleQuote) -> ql.YieldTermStructureHandle:
    """A flat curve that follows the quote `rate`."""
    return ql.YieldTermStructureHandle(ql.FlatForward(TODAY, ql.QuoteHandle(rate), DAY_COUNTER))


def flat_volatility(volatility: ql.SimpleQuote) -> ql.BlackVolTermStructureHandle:
    """A flat volatility surface that follows the quote `volatility`."""
    surface = ql.BlackConstantVol(TODAY, ql.NullCalendar(), ql.QuoteHandle(volatility), DAY_COUNTER)
    return ql.BlackVolTermStructureHandle(surface)


@dataclass(frozen=True, slots=True)
class Market:
    """The quotes of one underlying and the Black-Scholes-Merton process that follows them.

    One market serves instrument after instrument: to build one costs more than most of the closed formulas,
    to move its quotes next to nothing.
    """

    spot: ql.SimpleQuote
    yield_: ql.SimpleQuote
    rate: ql.SimpleQuote
    volatility: ql.SimpleQuote
    process: ql.BlackScholesMertonProcess

    def move_to(self, spot: float, q: float, r: float, vol: float) -> None:
        """Set price, dividend yield, riskless rate and volatility."""
        self.spot.setValue(spot)
        self.yield_.setValue(q)
        self.rate.setValue(r)
        self.volatility.setValue(vol)


def flat_market() -> Market:
    """A market of one underlying, whose quotes have no values before `Market.move_to`."""
    rate = ql.SimpleQuote()
    return _market(ql.SimpleQuote(), ql.SimpleQuote(), rate, flat_rate(rate), ql.SimpleQuote())


def second_underlying(market: Market, spot: float, q: float, vol: float) -> Market:
    """A further underlying under the riskless rate of `market`."""
    curve = market.process.riskFreeRate()
    return _market(ql.SimpleQuote(spot), ql.SimpleQuote(q), market.rate, curve, ql.SimpleQuote(vol))


def on_futures(market: Market) -> ql.BlackProcess:
    """The process of `market` with its price read as a futures price, which grows at the riskless rate less itself."""
    process = market.process
    return ql.BlackProcess(ql.QuoteHandle(market.spot), process.riskFreeRate(), process.blackVolatility())


def _market(
    spot: ql.SimpleQuote,
    yield_: ql.SimpleQuote,
    rate: ql.SimpleQuote,
    curve: ql.YieldTermStructureHandle,
    volatility: ql.SimpleQuote,
) -> Market:
    process = ql.BlackScholesMertonProcess(ql.QuoteHandle(spot), flat_rate(yield_), curve, flat_volatility(volatility))
    return Market(spot, yield_, rate, volatility, process)
