"""Decides which pricer is killed under memory pressure, and how soon to look again. Pure: snapshots in, a decision out.

The pricer that grew most within the last seconds is killed: a pricer that has held its memory for an hour did not cause
the pressure, and has more work to lose. If none has grown, the largest is killed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raygrid.system.memory import Memory

WINDOW_S = 20.0
LEAST = 16 * 1024**2  # killing a smaller pricer frees too little; growth below this is noise
FASTEST = 8 * 1024**3  # bytes a second by which all pricers together may grow
SOONEST_S, LATEST_S = 0.05, 1.0
WATCH = 4  # snapshots of the pricers are kept while less than this many times the reserve is available


@dataclass(frozen=True, slots=True)
class PricerSize:
    """The resident memory of a pricer's whole process tree, bytes; `pid` is the pricer's own process."""

    pid: int
    rss: int


@dataclass(frozen=True, slots=True)
class Victim:
    """The pricer to kill: it grew by `grown` bytes within `over_s`; `crowded` if it was not alone on the machine."""

    size: PricerSize
    grown: int
    over_s: float
    crowded: bool


class PressureHistory:
    """What pricers used within the last seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Mapping[int, int]]] = deque()

    def add(self, now: float, sizes: Sequence[PricerSize]) -> None:
        """Remember a snapshot taken at `now` (monotonic seconds)."""
        self._looks.append((now, {size.pid: size.rss for size in sizes}))
        while len(self._looks) > 2 and self._looks[1][0] <= now - WINDOW_S:
            self._looks.popleft()

    def clear(self) -> None:
        """Forget all snapshots, because there is enough memory."""
        self._looks.clear()

    @property
    def last_at(self) -> float | None:
        """When the latest snapshot was taken."""
        return self._looks[-1][0] if self._looks else None

    def grown(self, size: PricerSize) -> int:
        """Bytes by which a pricer grew from the earliest snapshot to the latest; a new one grew from 0."""
        return size.rss - self._looks[0][1].get(size.pid, 0) if len(self._looks) > 1 else size.rss

    @property
    def over_s(self) -> float:
        """The time between the earliest and the latest snapshot."""
        return self._looks[-1][0] - self._looks[0][0] if self._looks else 0.0


def is_watched(memory: Memory) -> bool:
    """Whether so little memory is left that snapshots of the pricers are worth their cost."""
    return memory.available < WATCH * memory.reserve


def choose(memory: Memory, sizes: Sequence[PricerSize], history: PressureHistory) -> Victim | None:
    """The pricer to kill; None without pressure, or if killing pricers cannot end it.

    `sizes` are the pricers of all agents in the latest snapshot, which `history` includes.
    """
    if memory.headroom >= 0:
        return None
    large = [size for size in sizes if size.rss >= LEAST]
    if sum(size.rss for size in large) < -memory.headroom or not large:
        return None  # another program uses the memory; killing all pricers would not help
    grown = {size.pid: history.grown(size) for size in large}

    def blame(size: PricerSize) -> tuple[int, int]:
        return (grown[size.pid] if grown[size.pid] >= LEAST else 0), size.rss

    worst = max(large, key=blame)
    return Victim(worst, grown[worst.pid], history.over_s, crowded=len(sizes) > 1)


def next_look_s(memory: Memory) -> float:
    """Seconds until the next look, before pricers that grow at full speed can use up the headroom."""
    return min(LATEST_S, max(SOONEST_S, memory.headroom / FASTEST))
