"""Jobs that run far beyond their kind's usual time, and what may be done about them.

Such a job gets one more attempt, on another node, where a slot would idle otherwise; the first answer counts. What is
usual is the median of the latest answers of its pricer that this leader has seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from raygrid.core.group.entry import Entry

CHECK_S = 0.5
REMEMBERED = 64
LEAST_KNOWN = 5  # fewer answers say nothing of what is usual
SHARE = 0.1  # of the group's slots, at most, are for second attempts; one in any case


@dataclass(frozen=True, slots=True)
class StragglerPolicy:
    """When a job of a pricer is one: after `factor` times the usual time, and never before `min_s`."""

    factor: float = 3.0
    min_s: float = 10.0


class UsualTimes:
    """How long jobs take, by pricer."""

    def __init__(self) -> None:
        self._latest: dict[str, deque[float]] = {}

    def saw(self, pricer: str, seconds: float) -> None:
        """A job has been answered after so long."""
        self._latest.setdefault(pricer, deque(maxlen=REMEMBERED)).append(seconds)

    def usual_s(self, pricer: str) -> float | None:
        """The median; None while too little is known."""
        latest = self._latest.get(pricer, ())
        return median(latest) if len(latest) >= LEAST_KNOWN else None


def limits(policies: Mapping[str, StragglerPolicy], usual: UsualTimes) -> dict[str, float]:
    """After how many seconds a job is a straggler, by pricer; those of which too little is known are left out."""
    known = {pricer: usual.usual_s(pricer) for pricer in policies}
    return {
        pricer: max(policies[pricer].min_s, policies[pricer].factor * usual_s)
        for pricer, usual_s in known.items()
        if usual_s is not None
    }


def most_at_once(slots: int) -> int:
    """How many second attempts a group may have."""
    return max(1, int(slots * SHARE))


def stragglers(entries: Iterable[Entry], limit_s: Mapping[str, float], now: float) -> list[Entry]:
    """The jobs that deserve a second attempt, the one that is most beyond its time first."""
    late: list[tuple[float, str, Entry]] = []
    for entry in entries:
        limit = limit_s.get(entry.spec.pricer)
        if limit is None or now - entry.since <= limit or not _may_be_doubled(entry):
            continue
        late.append((-(now - entry.since) / limit, entry.spec.job_id, entry))
    return [entry for _, _, entry in sorted(late, key=lambda each: each[:2])]


def _may_be_doubled(entry: Entry) -> bool:
    """A job that may have killed a node is not let loose on two at once; one that needs a node alone has its node."""
    runs = entry.node_id is not None and entry.recorded and not entry.unconfirmed
    return runs and not (entry.doubled or entry.twin or entry.cancelled or entry.moved or entry.suspect or entry.alone)
