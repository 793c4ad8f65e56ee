"""Makes the kernel's out-of-memory killer choose pricers before the grid's own processes.

A process may raise the scores of its children without privileges. Scores are raised only for pricers that have run for
`AFTER_S`: most jobs end before that, and pay nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from raygrid.system.proc import children_of, own_oom_score, set_oom_score

RAISED_BY = 800  # of 1000: the kernel adds 80 % of the machine's memory to what the pricer uses
AFTER_S = 0.1
_MOST = 1000


class OomScores:
    """Raises the scores of pricers, each once."""

    def __init__(self) -> None:
        self._score = min(_MOST, max(0, own_oom_score()) + RAISED_BY)
        self._raised: set[int] = set()

    def raise_for(self, pids: Iterable[int]) -> None:
        """Raise the scores of these pricers and their descendants; processes that they start later inherit it."""
        pids = set(pids)
        self._raised &= pids
        for pid in pids - self._raised:
            for each in _with_descendants(pid):
                set_oom_score(each, self._score)
            self._raised.add(pid)


def _with_descendants(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        yield (parent := waiting.pop())
        waiting += children_of(parent)
