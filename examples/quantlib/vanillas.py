"""Kinds with one exercise on one underlying: European, American, digital, quanto, and options on options."""

from __future__ import annotations

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name
from contracts import (
    OPTION_TYPES,
    Contract,
    Registry,
    american_exercise,
    digital_payoff,
    european_exercise,
    option_type,
    vanilla,
)
from instruments import MAX_RATE, MAX_VOLATILITY, MAX_YEARS, Instrument
from market import TODAY, Market, date_in, days, flat_rate, flat_volatility

KINDS = Registry()


@KINDS.kind("european")
def european(row: Instrument, market: Market) -> Contract:
    """European call or put: Black-Scholes-Merton formula."""
    option = ql.VanillaOption(vanilla(row), european_exercise(row))
    return Contract(option, ql.AnalyticEuropeanEngine(market.process))


def _american(row: Instrument, engine_name: str, engine: ql.PricingEngine, one_sided: bool = False) -> Contract:
    if "engine" in row.extra:
        row.choice("engine", (engine_name,))
    return Contract(ql.VanillaOption(vanilla(row), american_exercise(row)), engine, one_sided=one_sided)


@KINDS.kind("american_baw", "engine")
def american_baw(row: Instrument, market: Market) -> Contract:
    """American call or put: approximation of Barone-Adesi and Whaley (1987)."""
    return _american(row, "BaroneAdesiWhaley", ql.BaroneAdesiWhaleyApproximationEngine(market.process))


@KINDS.kind("american_bs93", "engine")
def american_bs93(row: Instrument, market: Market) -> Contract:
    """American call or put: approximation of Bjerksund and Stensland (1993)."""
    return _american(row, "BjerksundStensland", ql.BjerksundStenslandApproximationEngine(market.process))


@KINDS.kind("american_ju", "engine")
def american_ju(row: Instrument, market: Market) -> Contract:
    """American call or put: quadratic approximation of Ju (1999)."""
    return _american(row, "JuQuadratic", ql.JuQuadraticApproximationEngine(market.process))


@KINDS.kind("american_fd", "engine")
def american_fd(row: Instrument, market: Market) -> Contract:
    """American call or put: finite differences, 100 steps in time on 200 points of spot.

    The grid itself puts vega and rho off by more (0.3 % of a typical rho) than one-sided slopes do.
    """
    engine = ql.FdBlackScholesVanillaEngine(market.process, 100, 200)
    return _american(row, "FiniteDifference", engine, one_sided=True)


@KINDS.kind("digital", "payoff cash secondStrike")
def digital(row: Instrument, market: Market) -> Contract:
    """European digital: cash, asset, or the gap to a second strike; Black-Scholes-Merton formula."""
    if row.choice("payoff", ("CashOrNothing", "AssetOrNothing", "Gap")) == "Gap":
        payoff = ql.GapPayoff(option_type(row), row.required_strike(), row.level("secondStrike"))
    else:
        payoff = digital_payoff(row)
    option = ql.VanillaOption(payoff, european_exercise(row))
    return Contract(option, ql.AnalyticEuropeanEngine(market.process))


@KINDS.kind("digital_american", "payoff cash payAtExpiry knockIn")
def digital_american(row: Instrument, market: Market) -> Contract:
    """One-touch (knockIn=1) or no-touch (knockIn=0) digital; formulas of Reiner and Rubinstein (1991)."""
    pay_at_expiry = row.choice("payAtExpiry", ("0", "1")) == "1"
    exercise = ql.AmericanExercise(TODAY, date_in(row.t), pay_at_expiry)
    touched_pays = row.choice("knockIn", ("0", "1")) == "1"
    if not touched_pays and not pay_at_expiry:
        raise row.bad("knockIn=0 pays for never having been touched, which needs payAtExpiry=1")
    engine = ql.AnalyticDigitalAmericanEngine if touched_pays else ql.AnalyticDigitalAmericanKOEngine
    option = ql.VanillaOption(digital_payoff(row), exercise)
    return Contract(option, engine(market.process), (row.required_strike(),))


@KINDS.kind("quanto", "fxRate fxVol rho")
def quanto(row: Instrument, market: Market) -> Contract:
    """European option paid in another currency at a fixed rate of exchange: formula of Reiner (1992)."""
    foreign_rate = flat_rate(ql.SimpleQuote(row.number("fxRate", -MAX_RATE, MAX_RATE)))
    fx_volatility = flat_volatility(ql.SimpleQuote(row.number("fxVol", 0.0, MAX_VOLATILITY)))
    correlation = ql.QuoteHandle(ql.SimpleQuote(row.number("rho", -1.0, 1.0)))
    option = ql.QuantoVanillaOption(vanilla(row), european_exercise(row))
    engine = ql.QuantoEuropeanEngine(market.process, foreign_rate, fx_volatility, correlation)
    return Contract(option, engine)


@KINDS.kind("compound", "motherType motherStrike tMother")
def compound(row: Instrument, market: Market) -> Contract:
    """Option until `tMother` on the option that the columns describe: formula of Geske (1979)."""
    mother_type = OPTION_TYPES[row.choice("motherType", OPTION_TYPES)]
    option = ql.CompoundOption(
        ql.PlainVanillaPayoff(mother_type, row.level("motherStrike")),
        ql.EuropeanExercise(date_in(row.years("tMother", until=row.t))),
        vanilla(row),
        european_exercise(row),
    )
    return Contract(option, ql.AnalyticCompoundOptionEngine(market.process))


@KINDS.kind("chooser_complex", "tChoose putStrike tPut")
def chooser_complex(row: Instrument, market: Market) -> Contract:
    """Choice at `tChoose` between a call (the columns strike and t) and a put: Rubinstein (1991).

    As in QuantLib's own test of this engine, `t` and `tPut` are the choosing time plus the time to expiry:
    the engine subtracts `tChoose` from each, so a call that expires in half a year has t = 0.5 + tChoose.
    """
    choice, expiry_of_put = row.years("tChoose", until=row.t), row.years("tPut", until=MAX_YEARS)
    if 2 * days(choice) >= min(days(row.t), days(expiry_of_put)):
        raise row.bad("extra tChoose must lie before both expiries (t and tPut, each less tChoose)")
    option = ql.ComplexChooserOption(
        date_in(choice),
        row.required_strike(),
        row.level("putStrike"),
        european_exercise(row),
        ql.EuropeanExercise(date_in(expiry_of_put)),
    )
    return Contract(option, ql.AnalyticComplexChooserEngine(market.process))


@KINDS.kind("forward_start", "moneyness tStart")
def forward_start(row: Instrument, market: Market) -> Contract:
    """Option struck at `moneyness` times the spot at `tStart`: formula of Rubinstein (1990)."""
    strike_set_later = ql.PlainVanillaPayoff(option_type(row), 0.0)
    start = date_in(row.years("tStart", until=row.t))
    option = ql.ForwardVanillaOption(row.level("moneyness"), start, strike_set_later, european_exercise(row))
    return Contract(option, ql.ForwardEuropeanEngine(market.process))
