"""Numbers for the slots that are in use (`RAYGRID_SLOT`): what runs at the same time has different ones.

A pricer may take its number for a GPU, a port or a licence. The caller keeps calls apart.
"""

from __future__ import annotations


class SlotNumbers:
    """Gives out the lowest number that is free: with no more than n in use at once, none is n or more."""

    def __init__(self) -> None:
        self._used = 0  # a bit for each number

    def take(self) -> int:
        """A number that nothing else has until it is given back."""
        lowest = ~self._used & (self._used + 1)
        self._used |= lowest
        return lowest.bit_length() - 1

    def give_back(self, number: int) -> None:
        """The number is free."""
        self._used &= ~(1 << number)
