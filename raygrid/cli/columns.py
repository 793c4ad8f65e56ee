"""Which columns of a list fit a terminal, and how wide each is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import MappingProxyType

GAP = 2  # blanks between two columns
NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that are shown.

    Attributes:
        widths: name of each column that is shown, in order, to its width.
        reduced: names of the columns that are left out, narrower than their values, or beyond the end of the line.
    """

    widths: dict[str, int]
    reduced: tuple[str, ...]


def lay_out(
    wanted: Mapping[str, int], room: int, *, dispensable: Sequence[str] = (), shortened: Mapping[str, int] = NOTHING
) -> Layout:
    """Choose the columns for a line.

    Args:
        wanted: name of each column, in order, to the width of its widest value.
        room: width of the line.
        dispensable: columns that are left out if the others need the room, the first one first.
        shortened: columns whose values may be shortened, the last one first, to their least widths.
    """
    widths = {name: min(width, shortened.get(name, width)) for name, width in wanted.items()}

    def left() -> int:
        return room - sum(widths.values()) - GAP * (len(widths) - 1)

    for name in dispensable:
        if left() >= 0:
            break
        widths.pop(name, None)
    for name in shortened:
        if name in widths:
            widths[name] += max(0, min(wanted[name] - widths[name], left()))
    ends = dict(zip(widths, accumulate(width + GAP for width in widths.values()), strict=True))
    whole = {name for name, end in ends.items() if widths[name] == wanted[name] and end - GAP <= room}
    return Layout(widths, tuple(name for name in wanted if name not in whole))
