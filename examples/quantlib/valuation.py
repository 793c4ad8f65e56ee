"""Price and sensitivities of one contract.

A sensitivity that the engine computes is taken from it; otherwise delta, gamma, vega and rho are central
differences over moved quotes. Called by `price.py` with the contract that `kinds.py` has built.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name
from contracts import Contract
from market import Market

SPOT_STEP = 1e-3  # of the spot
VOLATILITY_STEP = 1e-4
RATE_STEP = 1e-4


class PricingFailedError(RuntimeError):
    """QuantLib could not price the contract; the text is its explanation."""


@dataclass(frozen=True, slots=True)
class Valuation:
    """Price and sensitivities: per unit of spot, volatility and rate, and theta per year.

    None where the engine gives no value and a difference over moved quotes would mean nothing.
    """

    price: float
    delta: float | None
    gamma: float | None
    vega: float | None
    theta: float | None
    rho: float | None
    engine: str


def value(contract: Contract, market: Market) -> Valuation:
    """The valuation of `contract`, whose engine follows the quotes of `market`. Raises PricingFailedError."""
    option = contract.option
    try:
        option.setPricingEngine(contract.engine)
        price = float(option.NPV())
    except RuntimeError as error:
        raise PricingFailedError(str(error)) from None
    if not math.isfinite(price):
        raise PricingFailedError(f"the price is {price}")
    own = {name: _engine_value(option, name) for name in ("delta", "gamma", "vega", "theta", "rho")}
    delta, gamma = own["delta"], own["gamma"]
    if (delta is None or gamma is None) and not _near_a_kink(contract, market):
        moved_delta, moved_gamma = _spot_differences(option, market.spot)
        delta = moved_delta if delta is None else delta
        gamma = moved_gamma if gamma is None else gamma
    vega = own["vega"] if own["vega"] is not None else _slope(option, market.volatility, VOLATILITY_STEP)
    rho = own["rho"] if own["rho"] is not None else _slope(option, market.rate, RATE_STEP)
    engine = type(contract.engine).__name__
    return Valuation(price, delta, gamma, vega, own["theta"], rho, engine)


def _engine_value(option: ql.Instrument, name: str) -> float | None:
    """What the engine gives for `name`; QuantLib raises for a result that the engine does not provide."""
    method: Callable[[], float] | None = getattr(option, name, None)
    if method is None:
        return None
    try:
        return _finite(method())
    except RuntimeError:
        return None


def _near_a_kink(contract: Contract, market: Market) -> bool:
    spot = float(market.spot.value())
    return any(abs(spot - level) <= 2.0 * SPOT_STEP * spot for level in contract.kinks)


def _spot_differences(option: ql.Instrument, spot: ql.SimpleQuote) -> tuple[float | None, float | None]:
    step = float(spot.value()) * SPOT_STEP
    below, here, above = _prices(option, spot, step)
    return _finite((above - below) / (2.0 * step)), _finite((above - 2.0 * here + below) / step**2)


def _slope(option: ql.Instrument, quote: ql.SimpleQuote, step: float) -> float | None:
    below, here, above = _prices(option, quote, step)
    if math.isnan(below):  # some engines refuse a negative rate: look upwards only
        return _finite((above - here) / step)
    return _finite((above - below) / (2.0 * step))


def _prices(option: ql.Instrument, quote: ql.SimpleQuote, step: float) -> tuple[float, float, float]:
    """The prices with `quote` lower by `step`, as it is, and higher by `step`; NaN where there is none."""
    middle = quote.value()
    found: list[float] = []
    try:
        for moved in (middle - step, middle, middle + step):
            quote.setValue(moved)
            try:
                found.append(float(option.NPV()))
            except RuntimeError:
                found.append(math.nan)
    finally:
        quote.setValue(middle)
    return found[0], found[1], found[2]


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
