"""Numbers for the slots that are in use (`RAYGRID_SLOT`): pricers that run at the same time have different numbers.

A pricer may use its number to choose a GPU, a port or a licence. The caller holds a lock during each call.
"""

from __future__ import annotations


class SlotNumbers:
    """Assigns the lowest free number: with at most n in use at a time, all are below n."""

    def __init__(self) -> None:
        self._used = 0  # a bit for each number

    def take(self) -> int:
        """A number that is not assigned again before it is given back."""
        lowest = ~self._used & (self._used + 1)
        self._used |= lowest
        return lowest.bit_length() - 1

    def give_back(self, number: int) -> None:
        """The number is free."""
        self._used &= ~(1 << number)
