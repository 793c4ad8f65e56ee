"""What a workload is given and what it gives: the plan of a run, and its figures with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from raygrid.system.processors import usable_processors

AT_ONCE = 2 * usable_processors()


@dataclass(frozen=True, slots=True)
class Plan:
    """How a run is to be made.

    Attributes:
        scratch: directory for everything that the run writes; removed after it.
        rounds: how often each figure is taken.
        size: share of the jobs that the workloads have in full; below 1 for a try.
        at_once: processes at once, the same for every contender.
        only: names of the contenders that take part; empty for all.
        profile: directory for profiles of the tiers, if they are wanted.
    """

    scratch: Path
    rounds: int = 3
    size: float = 1.0
    at_once: int = AT_ONCE
    only: frozenset[str] = frozenset()
    profile: Path | None = None

    def jobs(self, in_full: int, at_least: int = 4) -> int:
        """How many jobs are run where a full run has so many."""
        return max(at_least, round(in_full * self.size))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what was measured of whom, once a round.

    Attributes:
        of: the contender, or the part of the grid.
        what: what the numbers are, such as `jobs/s`.
        values: one a round; none if it could not be measured, and then `note` says why.
        note: what has to be known beside it.
        lacks: what a contender does not do that the grid does.
    """

    of: str
    what: str
    values: tuple[float, ...] = ()
    note: str = ""
    lacks: str = ""

    @property
    def median(self) -> float | None:
        """The middle value, if there is any."""
        return statistics.median(self.values) if self.values else None


@dataclass(frozen=True, slots=True)
class Measured:
    """All figures of one workload; `broke` says why there are none, if it broke."""

    workload: int
    title: str
    figures: tuple[Figure, ...] = ()
    broke: str = ""

    def values(self, of: str, what: str) -> tuple[float, ...]:
        """The values of one figure; none if it is not there."""
        return next((figure.values for figure in self.figures if (figure.of, figure.what) == (of, what)), ())


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of all values does not exceed, by the nearest rank."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, int(len(ranked) * share + 0.999999) - 1))]
