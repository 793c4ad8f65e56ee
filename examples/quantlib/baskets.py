"""Kinds on two underlyings."""

from __future__ import annotations

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name
from contracts import Contract, Registry, european_exercise, vanilla
from instruments import MAX_RATE, MAX_VOLATILITY, MIN_VOLATILITY, Instrument
from market import Market, on_futures, second_underlying

KINDS = Registry()


def _second(row: Instrument, market: Market) -> Market:
    yield_ = row.number("q2", -MAX_RATE, MAX_RATE)
    volatility = row.number("vol2", MIN_VOLATILITY, MAX_VOLATILITY)
    return second_underlying(market, row.level("spot2"), yield_, volatility)


@KINDS.kind("basket2", "basket spot2 q2 vol2 rho")
def basket2(row: Instrument, market: Market) -> Contract:
    """Call or put on the smaller or the larger of two assets: formula of Stulz (1982)."""
    payoffs = {"Min": ql.MinBasketPayoff, "Max": ql.MaxBasketPayoff}
    payoff = payoffs[row.choice("basket", payoffs)]
    second = _second(row, market)
    engine = ql.StulzEngine(market.process, second.process, row.number("rho", -1.0, 1.0))
    return Contract(ql.BasketOption(payoff(vanilla(row)), european_exercise(row)), engine)


@KINDS.kind("spread_kirk", "basket spot2 q2 vol2 rho")
def spread_kirk(row: Instrument, market: Market) -> Contract:
    """Call or put on the difference of two futures prices: approximation of Kirk (1995)."""
    row.choice("basket", ("Spread",))
    if row.q != 0.0 or row.number("q2", -MAX_RATE, MAX_RATE) != 0.0:
        raise row.bad("spot and spot2 are futures prices: q and q2 must be 0")
    first, second = on_futures(market), on_futures(_second(row, market))
    engine = ql.KirkEngine(first, second, row.number("rho", -1.0, 1.0))
    return Contract(ql.BasketOption(ql.SpreadBasketPayoff(vanilla(row)), european_exercise(row)), engine)
