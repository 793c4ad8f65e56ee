"""Stragglers: jobs that run far longer than usual for their pricer.

A straggler gets a second attempt on another node if a slot would idle otherwise; the first answer counts. The usual
time is the median of the latest successful attempts of the pricer in this group.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from raygrid.core.group.entry import Entry

CHECK_S = 0.5
REMEMBERED = 64
LEAST_KNOWN = 5  # with fewer durations the usual time is unknown
SHARE = 0.1  # of the group's slots, at most, are for second attempts; at least one slot


@dataclass(frozen=True, slots=True)
class StragglerPolicy:
    """A job of a pricer is a straggler after `factor` times the usual time, and never before `min_s`."""

    factor: float = 3.0
    min_s: float = 10.0


class UsualTimes:
    """The latest durations of attempts, by pricer."""

    def __init__(self) -> None:
        self._latest: dict[str, deque[float]] = {}

    def add(self, pricer: str, seconds: float) -> None:
        """Add the duration of a successful attempt."""
        self._latest.setdefault(pricer, deque(maxlen=REMEMBERED)).append(seconds)

    def usual_s(self, pricer: str) -> float | None:
        """The median; None with too few durations."""
        latest = self._latest.get(pricer, ())
        return median(latest) if len(latest) >= LEAST_KNOWN else None


def limits(policies: Mapping[str, StragglerPolicy], usual: UsualTimes) -> dict[str, float]:
    """After how many seconds a job is a straggler, by pricer; pricers with too few durations are left out."""
    known = {pricer: usual.usual_s(pricer) for pricer in policies}
    return {
        pricer: max(policies[pricer].min_s, policies[pricer].factor * usual_s)
        for pricer, usual_s in known.items()
        if usual_s is not None
    }


def most_at_once(slots: int) -> int:
    """Limit of second attempts in a group."""
    return max(1, int(slots * SHARE))


def stragglers(entries: Iterable[Entry], limit_s: Mapping[str, float], now: float) -> list[Entry]:
    """The jobs that may get a second attempt, the one that exceeds its limit most first."""
    late: list[tuple[float, str, Entry]] = []
    for entry in entries:
        limit = limit_s.get(entry.spec.pricer)
        if limit is None or now - entry.since <= limit or not _may_have_second(entry):
            continue
        late.append((-(now - entry.since) / limit, entry.spec.job_id, entry))
    return [entry for _, _, entry in sorted(late, key=lambda each: each[:2])]


def _may_have_second(entry: Entry) -> bool:
    """Whether a job may have two attempts at once: not if it may have killed a node, or needs a node for itself."""
    runs = entry.node_id is not None and entry.recorded and not entry.unconfirmed
    return runs and not (
        entry.had_second or entry.second or entry.cancelled or entry.moved or entry.suspect or entry.alone
    )
