"""Kinds that a barrier knocks in or out."""

from __future__ import annotations

from collections.abc import Mapping

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name
from contracts import Contract, Registry, digital_payoff, european_exercise, vanilla
from instruments import Instrument
from market import TODAY, Market, date_in

KINDS = Registry()

BARRIER_TYPES: Mapping[str, int] = {
    "DownIn": ql.Barrier.DownIn,
    "DownOut": ql.Barrier.DownOut,
    "UpIn": ql.Barrier.UpIn,
    "UpOut": ql.Barrier.UpOut,
}
DOUBLE_BARRIER_TYPES: Mapping[str, int] = {
    "KnockIn": ql.DoubleBarrier.KnockIn,
    "KnockOut": ql.DoubleBarrier.KnockOut,
}


@KINDS.kind("barrier", "barrierType barrier rebate")
def barrier(row: Instrument, market: Market) -> Contract:
    """Knock-in or knock-out call or put with a rebate: formula of Reiner and Rubinstein (1991)."""
    kind_of_barrier = BARRIER_TYPES[row.choice("barrierType", BARRIER_TYPES)]
    level = row.level("barrier")
    rebate = row.number("rebate") if "rebate" in row.extra else 0.0
    option = ql.BarrierOption(kind_of_barrier, level, rebate, vanilla(row), european_exercise(row))
    return Contract(option, ql.AnalyticBarrierEngine(market.process), (level,))


@KINDS.kind("double_barrier", "barrierType barrierLo barrierHi")
def double_barrier(row: Instrument, market: Market) -> Contract:
    """Call or put between two barriers, without a rebate: series of Ikeda and Kunitomo (1992)."""
    kind_of_barrier = DOUBLE_BARRIER_TYPES[row.choice("barrierType", DOUBLE_BARRIER_TYPES)]
    low, high = row.level("barrierLo"), row.level("barrierHi")
    if low >= high:
        raise row.bad("extra barrierLo must be below barrierHi")
    payoff = vanilla(row)
    if (payoff.strike() < low) if row.type == "Call" else (payoff.strike() > high):
        raise row.bad("QuantLib's series needs a call's strike above barrierLo, a put's below barrierHi")
    option = ql.DoubleBarrierOption(kind_of_barrier, low, high, 0.0, payoff, european_exercise(row))
    return Contract(option, ql.AnalyticDoubleBarrierEngine(market.process), (low, high))


@KINDS.kind("binary_barrier", "payoff barrierType barrier cash")
def binary_barrier(row: Instrument, market: Market) -> Contract:
    """Cash or asset at expiry if a barrier was (not) touched: formulas of Reiner and Rubinstein (1991)."""
    kind_of_barrier = BARRIER_TYPES[row.choice("barrierType", BARRIER_TYPES)]
    level = row.level("barrier")
    exercise = ql.AmericanExercise(TODAY, date_in(row.t), True)
    option = ql.BarrierOption(kind_of_barrier, level, 0.0, digital_payoff(row), exercise)
    return Contract(option, ql.AnalyticBinaryBarrierEngine(market.process), (level,))
