"""The input and output of a workload: the plan of a run, and figures with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from raygrid.system.processors import usable_processors

AT_ONCE = 2 * usable_processors()


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a run.

    Attributes:
        scratch: directory for everything that the run writes; removed after it.
        rounds: how often each figure is measured.
        size: share of the workloads' full number of jobs; below 1 for a trial.
        at_once: processes at once, the same for every contender.
        only: names of the contenders that take part; empty for all.
        profile: directory for profiles of the tiers; None for no profiles.
    """

    scratch: Path
    rounds: int = 3
    size: float = 1.0
    at_once: int = AT_ONCE
    only: frozenset[str] = frozenset()
    profile: Path | None = None

    def jobs(self, in_full: int, at_least: int = 4) -> int:
        """How many jobs to run, if a full run has `in_full`."""
        return max(at_least, round(in_full * self.size))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    Attributes:
        of: the contender, or the part of the grid.
        what: what was measured, such as `jobs/s`.
        values: one for each round; empty if it could not be measured, with the reason in `note`.
        note: a remark.
        lacks: functions of the grid that a contender does not have.
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
    """All figures of one workload; `broke` is the error if it failed."""

    workload: int
    title: str
    figures: tuple[Figure, ...] = ()
    broke: str = ""

    def values(self, of: str, what: str) -> tuple[float, ...]:
        """The values of one figure; empty if there is none."""
        return next((figure.values for figure in self.figures if (figure.of, figure.what) == (of, what)), ())


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of all values does not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, int(len(ranked) * share + 0.999999) - 1))]
