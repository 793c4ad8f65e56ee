"""The goals, and whether they were reached. Most are ratios within one run, which depend little on the machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench.contenders import GRID
from bench.figures import Measured
from raygrid.trial.verdict import figure

Value = Callable[[Measured], float | None]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for a figure.

    Attributes:
        workload: the workload of the figure.
        what: the goal in words.
        value: gives the figure; None if the figure to compare with was not measured.
        needs: figures that must exist: without them the goal is missed, not left open.
        at_least: lower bound, if it has one.
        at_most: upper bound, if it has one.
    """

    workload: int
    what: str
    value: Value
    needs: tuple[tuple[str, str], ...]
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a goal was reached; None if it could not be judged."""

    goal: Goal
    reached: bool | None
    said: str


def ratio(above: tuple[str, str], below: tuple[str, str]) -> Value:
    """One figure over another: the median over the rounds if both have as many, otherwise the ratio of medians."""

    def value(measured: Measured) -> float | None:
        tops, bottoms = measured.values(*above), measured.values(*below)
        if not tops or not bottoms:
            return None
        if len(tops) == len(bottoms):
            return statistics.median(top / bottom for top, bottom in zip(tops, bottoms, strict=True))
        return statistics.median(tops) / statistics.median(bottoms)

    return value


def beyond(figure: tuple[str, str], base: tuple[str, str]) -> Value:
    """The difference of two figures' medians."""

    def value(measured: Measured) -> float | None:
        of, beside = measured.values(*figure), measured.values(*base)
        return statistics.median(of) - statistics.median(beside) if of and beside else None

    return value


def alone(of: str, what: str) -> Value:
    """The median of one figure."""

    def value(measured: Measured) -> float | None:
        values = measured.values(of, what)
        return statistics.median(values) if values else None

    return value


def highest(what: str) -> Value:
    """The highest value of all figures of that name."""

    def value(measured: Measured) -> float | None:
        return max((max(each.values) for each in measured.figures if each.what == what and each.values), default=None)

    return value


def highest_of(tier: str, what: str) -> Value:
    """The highest value of all figures of that name and tier."""

    def value(measured: Measured) -> float | None:
        of_tier = [each for each in measured.figures if each.what == what and each.of.endswith(tier)]
        return max((max(each.values) for each in of_tier if each.values), default=None)

    return value


def _rate(of: str) -> tuple[str, str]:
    return of, "jobs/s"


_NEEDS_RATE = (_rate(GRID),)
_NEEDS_WARM = (_rate("raygrid warm"),)
_NEEDS_P50 = ((GRID, "ms p50"),)
_SHARE = "share of slots' time"
_LARGE, _CP = "raygrid, 100 MB", "cp, 100 MB"
_FEW, _MANY = ("2,000 queued", "ms a job"), ("100,000 queued", "ms a job")
GOALS = (
    *(
        Goal(1, f"jobs/s against {peer}", ratio(_rate(GRID), _rate(peer)), _NEEDS_RATE, at_least=2.0)
        for peer in ("HyperQueue", "Dask", "Celery")
    ),
    Goal(1, "jobs/s against xargs -P", ratio(_rate(GRID), _rate("xargs")), _NEEDS_RATE, at_least=0.6),
    Goal(2, "share of the slots' time", alone(GRID, _SHARE), ((GRID, _SHARE),), at_least=0.97),
    Goal(3, "warm against cold", ratio(_rate("raygrid warm"), _rate("raygrid cold")), _NEEDS_WARM, at_least=20.0),
    Goal(3, "warm against bare loops", ratio(_rate("raygrid warm"), _rate("bare loops")), _NEEDS_WARM, at_least=0.7),
    Goal(4, "ms p50 above a bare spawn", beyond((GRID, "ms p50"), ("bare spawn", "ms p50")), _NEEDS_P50, at_most=8.0),
    Goal(4, "ms p99", alone(GRID, "ms p99"), ((GRID, "ms p99"),), at_most=30.0),
    *(
        Goal(5, f"{what} of 100 MB against cp", ratio((_LARGE, what), (_CP, "MB/s with fsync")), ((_LARGE, what),), 0.5)
        for what in ("MB/s in", "MB/s out")
    ),
    Goal(5, "MB that any tier grew by", highest("MB grown at most"), (), at_most=64.0),
    Goal(7, "ms a job at 100,000 queued against 2,000", ratio(_MANY, _FEW), (_MANY,), at_most=1.15),
    Goal(7, "MB of the leader", highest_of("leader", "MB at most"), (_MANY,), at_most=300.0),
    Goal(8, "results/s in bulk", alone("in bulk", "results/s"), (("in bulk", "results/s"),), at_least=3_000.0),
)


def judge(measured: Measured) -> list[Verdict]:
    """The verdicts on all goals of the workload."""
    return [_verdict(goal, measured) for goal in GOALS if goal.workload == measured.workload]


def _verdict(goal: Goal, measured: Measured) -> Verdict:
    missing = [" ".join(need) for need in goal.needs if not measured.values(*need)]
    if missing:
        return Verdict(goal, False, f"missed: there is no figure of {', '.join(missing)}")
    found = goal.value(measured)
    if found is None:
        return Verdict(goal, None, "not judged: the figure to compare with is absent")
    if goal.at_least is not None:
        reached, bound, side = found >= goal.at_least, goal.at_least, "at least"
    else:
        assert goal.at_most is not None, "a goal has a bound"
        reached, bound, side = found <= goal.at_most, goal.at_most, "at most"
    said = f"{figure(found)}, goal {side} {figure(bound)}"
    if not reached:
        said += f": missed by {figure(abs(found - bound))} ({abs(found - bound) / bound:.0%})" if bound else ": missed"
    return Verdict(goal, reached, said)
