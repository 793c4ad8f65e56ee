"""The load of a simulation: when jobs arrive and how long they run, as described on the command line.

Both are drawn for each job from the seed alone, so that grids of different sizes are compared with the same jobs.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random

from raygrid.errors import InvalidRequestError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h)")
_STEP = re.compile(r"(\d+(?:\.\d+)?/[smh])@(\d+(?:\.\d+)?(?:ms|s|m|h|d))")


def duration_s(text: str) -> float:
    """Seconds, from a number with its unit.

    Raises:
        InvalidRequestError: it is not a duration.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise InvalidRequestError(f"{text!r} is not a duration; give a number and its unit, such as 100ms, 10s, 2h")
    return float(found[1]) * _UNITS[found[2]]


def _rate(text: str) -> float:
    found = _RATE.fullmatch(text)
    if found is None:
        raise InvalidRequestError(f"{text!r} is not a rate; give jobs per second, minute or hour, such as 200/s")
    return float(found[1]) / _UNITS[found[2]]


@dataclass(frozen=True, slots=True)
class RunTimes:
    """Run times of jobs: lognormal, or drawn from observed ones.

    Attributes:
        median_s: the median.
        sigma: standard deviation of the logarithm; with 0 all run times are equal.
        observed_s: observed run times; if there are any, the others do not matter.
    """

    median_s: float = 0.0
    sigma: float = 0.0
    observed_s: Sequence[float] = ()

    @classmethod
    def parse(cls, text: str) -> RunTimes:
        """From `constant:100ms`, `lognormal:10s:0.8` (median and sigma) or `file:PATH` (seconds, one a line).

        Raises:
            InvalidRequestError: it is none of these, or the file does not contain positive numbers.
        """
        kind, _, rest = text.partition(":")
        if kind == "constant":
            return cls(_positive(duration_s(rest), text))
        if kind == "lognormal":
            median, _, sigma = rest.partition(":")
            try:
                spread = float(sigma)
            except ValueError:
                spread = math.nan
            if not 0 <= spread <= 5:
                raise InvalidRequestError(f"{text!r}: give lognormal:MEDIAN:SIGMA with a sigma from 0 to 5")
            return cls(_positive(duration_s(median), text), spread)
        if kind == "file":
            return cls(observed_s=_read(Path(rest)))
        raise InvalidRequestError(
            f"{text!r} is not a distribution of run times; give constant:100ms, lognormal:10s:0.8 or file:PATH"
        )

    def draw(self, count: int, random: Random) -> array[float]:
        """`count` run times in seconds."""
        if self.observed_s:
            return array("d", random.choices(self.observed_s, k=count))
        if not self.sigma:
            return array("d", [self.median_s]) * count
        mu, sigma = math.log(self.median_s), self.sigma
        return array("d", (random.lognormvariate(mu, sigma) for _ in range(count)))


def _positive(seconds: float, text: str) -> float:
    if seconds <= 0:
        raise InvalidRequestError(f"{text!r}: run times must be above 0")
    return seconds


def _read(path: Path) -> tuple[float, ...]:
    try:
        found = tuple(float(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip())
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"cannot read run times from {path}: {error}") from error
    if not found or not all(0 < each < math.inf for each in found):
        raise InvalidRequestError(f"{path} must contain seconds, one positive number a line")
    return found


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When jobs arrive: all at the beginning (no steps), or one by one at a rate that changes in steps.

    Attributes:
        steps: start of each step in seconds and its rate in jobs per second; the last rate does not end.
    """

    steps: tuple[tuple[float, float], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Arrivals:
        """From `all-at-once`, `poisson:200/s` or `steps:RATE@FROM,RATE@FROM,…` such as `steps:50/s@0s,200/s@1h`.

        Raises:
            InvalidRequestError: it is none of these, its steps are not in order, or the last rate is 0.
        """
        kind, _, rest = text.partition(":")
        if text == "all-at-once":
            return cls()
        if kind == "poisson":
            steps = [(0.0, _rate(rest))]
        elif kind == "steps":
            steps = [_step(each, text) for each in rest.split(",")]
        else:
            raise InvalidRequestError(
                f"{text!r} is not a profile of arrivals; give all-at-once, poisson:200/s or steps:50/s@0s,200/s@1h"
            )
        starts = [start for start, _ in steps]
        if starts[0] != 0 or any(later <= start for start, later in pairwise(starts)):
            raise InvalidRequestError(f"{text!r}: the first step must begin at 0s, and each after the one before")
        if steps[-1][1] <= 0:
            raise InvalidRequestError(f"{text!r}: the last rate holds for all further jobs, so it must be above 0")
        return cls(tuple(steps))

    @property
    def at_once(self) -> bool:
        """Whether all jobs arrive at the beginning."""
        return not self.steps

    def draw(self, count: int, random: Random) -> array[float]:
        """`count` arrivals in order, seconds from the beginning: a Poisson process of the given rates."""
        if self.at_once:
            return array("d", bytes(8 * count))
        return array("d", self._instants(count, random))

    def _instants(self, count: int, random: Random) -> Iterator[float]:
        at, step = 0.0, 0
        for _ in range(count):
            wanted = random.expovariate(1.0)  # integral of the rate until the next arrival
            while (
                step + 1 < len(self.steps) and at + wanted / (self.steps[step][1] or 1e-300) > self.steps[step + 1][0]
            ):
                end, rate = self.steps[step + 1][0], self.steps[step][1]
                wanted -= (end - at) * rate
                at, step = end, step + 1
            at += wanted / self.steps[step][1]
            yield at


def _step(text: str, whole: str) -> tuple[float, float]:
    found = _STEP.fullmatch(text)
    if found is None:
        raise InvalidRequestError(f"{whole!r}: {text!r} is not a step; give RATE@FROM, such as 200/s@1h")
    return duration_s(found[2]), _rate(found[1])
