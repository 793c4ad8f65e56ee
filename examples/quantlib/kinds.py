"""All kinds of instruments, and the function that makes a contract from a row.

Each kind is a function in one of the modules collected here, named as in the column `kind`: it says which
QuantLib option and pricing engine a row stands for. A new kind is one more function there.
"""

from __future__ import annotations

import averages
import barriers
import baskets
import lookbacks
import vanillas
from contracts import Contract, Kind
from instruments import Instrument
from market import Market

KINDS: dict[str, Kind] = vanillas.KINDS | barriers.KINDS | lookbacks.KINDS | averages.KINDS | baskets.KINDS


def build(row: Instrument, market: Market) -> Contract:
    """The contract that `row` describes, following the quotes of `market`.

    Raises BadInstrumentError when the row does not describe one, RuntimeError when QuantLib refuses it.
    """
    kind = KINDS.get(row.kind)
    if kind is None:
        raise row.bad(f"unknown kind; known are {', '.join(sorted(KINDS))}")
    if not row.extra.keys() <= kind.terms:
        unknown = sorted(row.extra.keys() - kind.terms)
        allowed = ", ".join(sorted(kind.terms)) or "nothing"
        raise row.bad(f"extra has {', '.join(unknown)}, but {row.kind} takes {allowed}")
    return kind.build(row, market)
