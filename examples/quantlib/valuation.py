"""Price and sensitivities of one contract.

A sensitivity that the engine computes is taken from it; otherwise delta, gamma, vega and rho are central
differences over moved quotes (vega and rho one-sided ones where a price takes long). Called by `price.py` with
the contract that `kinds.py` has built.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name
from contracts import Contract
from market import Market

SPOT_STEP = 1e-3  # of the spot
QUOTE_STEP = 1e-4  # of volatility and rate
ONE_SIDED_STEP = 1e-5  # likewise; smaller, for the error of a one-sided slope grows with the step, not its square


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
    delta, gamma, vega, theta, rho = _engine_values(option)
    if (delta is None or gamma is None) and not _near_a_kink(contract, market):
        moved_delta, moved_gamma = _spot_differences(option, price, market.spot)
        delta = moved_delta if delta is None else delta
        gamma = moved_gamma if gamma is None else gamma
    if vega is None:
        vega = _slope(contract, price, market.volatility)
    if rho is None:
        rho = _slope(contract, price, market.rate)
    return Valuation(price, delta, gamma, vega, theta, rho, type(contract.engine).__name__)


def _engine_values(option: ql.Instrument) -> tuple[float | None, ...]:
    """Delta, gamma, vega, theta and rho as far as the engine gives them."""
    delta = _engine_value(option, "delta")
    if delta is None:  # then the engine gives none of them, and requesting each costs more than most prices
        return (None,) * 5
    return delta, *(_engine_value(option, name) for name in ("gamma", "vega", "theta", "rho"))


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


def _spot_differences(option: ql.Instrument, price: float, spot: ql.SimpleQuote) -> tuple[float | None, float | None]:
    step = float(spot.value()) * SPOT_STEP
    below, above = _price_after(option, spot, -step), _price_after(option, spot, step)
    return _finite((above - below) / (2.0 * step)), _finite((above - 2.0 * price + below) / step**2)


def _slope(contract: Contract, price: float, quote: ql.SimpleQuote) -> float | None:
    option = contract.option
    if contract.one_sided:
        return _finite((_price_after(option, quote, ONE_SIDED_STEP) - price) / ONE_SIDED_STEP)
    below, above = _price_after(option, quote, -QUOTE_STEP), _price_after(option, quote, QUOTE_STEP)
    if math.isnan(below):  # some engines refuse a negative rate: use a one-sided difference
        return _finite((above - price) / QUOTE_STEP)
    return _finite((above - below) / (2.0 * QUOTE_STEP))


def _price_after(option: ql.Instrument, quote: ql.SimpleQuote, move: float) -> float:
    """The price with `quote` moved; NaN if there is none."""
    here = quote.value()
    quote.setValue(here + move)
    try:
        return float(option.NPV())
    except RuntimeError:
        return math.nan
    finally:
        quote.setValue(here)


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
