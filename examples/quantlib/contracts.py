"""The common parts of all kinds of instruments: contract, registry and payoffs.

The modules that define kinds (`vanillas`, `barriers`, `lookbacks`, `averages`, `baskets`) build on this one;
`kinds.py` collects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import QuantLib as ql  # type: ignore[import-untyped]  # noqa: N813  # an untyped wheel; its usual name
from instruments import Instrument
from market import TODAY, Market, date_in

OPTION_TYPES: Mapping[str, int] = {"Call": ql.Option.Call, "Put": ql.Option.Put}


@dataclass(frozen=True, slots=True)
class Contract:
    """A QuantLib option with the engine to price it.

    `kinks` are spot levels (barriers, running extremes) across which a price difference means nothing.
    `one_sided` is for engines that take long: vega and rho then cost one further price each in place of two.
    """

    option: ql.Instrument
    engine: ql.PricingEngine
    kinks: tuple[float, ...] = ()
    one_sided: bool = False


Builder = Callable[[Instrument, Market], Contract]


@dataclass(frozen=True, slots=True)
class Kind:
    """How a kind is built, and the names that may stand in `extra`."""

    build: Builder
    terms: frozenset[str]


class Registry(dict[str, Kind]):
    """Kinds by their name in the column `kind`."""

    def kind(self, name: str, terms: str = "") -> Callable[[Builder], Builder]:
        """Register the decorated function as the kind `name`, with the space-separated names in `extra`."""

        def enter(build: Builder) -> Builder:
            self[name] = Kind(build, frozenset(terms.split()))
            return build

        return enter


def option_type(row: Instrument) -> int:
    """QuantLib's code for the column `type`. Raises BadInstrumentError."""
    if row.type not in OPTION_TYPES:
        raise row.bad(f"column type is {row.type!r}, expected Call or Put")
    return OPTION_TYPES[row.type]


def vanilla(row: Instrument) -> ql.PlainVanillaPayoff:
    """The payoff of a call or put at the column `strike`. Raises BadInstrumentError."""
    return ql.PlainVanillaPayoff(option_type(row), row.required_strike())


def digital_payoff(row: Instrument) -> ql.StrikedTypePayoff:
    """The payoff of `payoff=CashOrNothing;cash=...` or `payoff=AssetOrNothing`. Raises BadInstrumentError."""
    if row.choice("payoff", ("CashOrNothing", "AssetOrNothing")) == "CashOrNothing":
        return ql.CashOrNothingPayoff(option_type(row), row.required_strike(), row.number("cash"))
    return ql.AssetOrNothingPayoff(option_type(row), row.required_strike())


def european_exercise(row: Instrument) -> ql.EuropeanExercise:
    """Exercise at `t` alone."""
    return ql.EuropeanExercise(date_in(row.t))


def american_exercise(row: Instrument) -> ql.AmericanExercise:
    """Exercise at any time until `t`."""
    return ql.AmericanExercise(TODAY, date_in(row.t))
