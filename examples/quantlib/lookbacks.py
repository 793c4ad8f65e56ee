"""Kinds that pay on the highest or lowest spot over a time."""

from __future__ import annotations

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name
from contracts import Contract, Registry, european_exercise, option_type, vanilla
from instruments import Instrument
from market import Market, date_in

KINDS = Registry()


def _differing_rates(row: Instrument) -> None:
    if abs(row.q - row.r) < 1e-9:
        raise row.bad("QuantLib's lookback formulas divide by r - q: the two must differ")


def _extreme(row: Instrument, highest: bool) -> float:
    """The running highest (or lowest) spot, which cannot be on the other side of today's."""
    extreme = row.level("minmax")
    if (extreme < row.spot) if highest else (extreme > row.spot):
        name, side = ("highest", "below") if highest else ("lowest", "above")
        raise row.bad(f"extra minmax is the {name} spot so far, but lies {side} today's")
    return extreme


@KINDS.kind("lookback_floating", "minmax")
def lookback_floating(row: Instrument, market: Market) -> Contract:
    """Strike at the extreme of the spot: formula of Goldman, Sosin and Gatto (1979)."""
    _differing_rates(row)
    payoff = ql.FloatingTypePayoff(option_type(row))
    extreme = _extreme(row, highest=row.type == "Put")
    option = ql.ContinuousFloatingLookbackOption(extreme, payoff, european_exercise(row))
    return Contract(option, ql.AnalyticContinuousFloatingLookbackEngine(market.process), (extreme,))


@KINDS.kind("lookback_fixed", "minmax")
def lookback_fixed(row: Instrument, market: Market) -> Contract:
    """Extreme of the spot against a fixed strike: formula of Conze and Viswanathan (1991)."""
    _differing_rates(row)
    payoff = vanilla(row)
    extreme = _extreme(row, highest=row.type == "Call")
    option = ql.ContinuousFixedLookbackOption(extreme, payoff, european_exercise(row))
    return Contract(option, ql.AnalyticContinuousFixedLookbackEngine(market.process), (extreme,))


@KINDS.kind("lookback_partial_floating", "minmax t1 lambda")
def lookback_partial_floating(row: Instrument, market: Market) -> Contract:
    """Strike at `lambda` times the extreme until `t1`: formula of Heynen and Kat (1994)."""
    _differing_rates(row)
    payoff = ql.FloatingTypePayoff(option_type(row))
    extreme = _extreme(row, highest=row.type == "Put")
    option = ql.ContinuousPartialFloatingLookbackOption(
        extreme,
        row.level("lambda"),
        date_in(row.years("t1", until=row.t)),
        payoff,
        european_exercise(row),
    )
    return Contract(option, ql.AnalyticContinuousPartialFloatingLookbackEngine(market.process), (extreme,))


@KINDS.kind("lookback_partial_fixed", "minmax t1")
def lookback_partial_fixed(row: Instrument, market: Market) -> Contract:
    """Extreme of the spot from `t1` on against a fixed strike: formula of Heynen and Kat (1994).

    The lookback lies wholly in the future, so that there is no running extreme: minmax may be left out.
    """
    _differing_rates(row)
    start = date_in(row.years("t1", until=row.t))
    option = ql.ContinuousPartialFixedLookbackOption(start, vanilla(row), european_exercise(row))
    return Contract(option, ql.AnalyticContinuousPartialFixedLookbackEngine(market.process))
