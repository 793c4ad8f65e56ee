"""Makes the kernel prefer pricers over the grid's own processes when it has to kill for want of memory.

Any process may raise its children's score. It is done for pricers that have run for a moment only: most jobs are over
by then, and pay nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from raygrid.system.proc import children_of

RAISED_BY = 800  # of 1000: as if a pricer used 80 % more of the machine's memory than it does
AFTER_S = 0.1
_MOST = 1000


class OomScores:
    """Raises the scores of pricers, each once."""

    def __init__(self) -> None:
        own = Path("/proc/self/oom_score_adj").read_text(encoding="ascii")
        self._score = min(_MOST, max(0, int(own)) + RAISED_BY)
        self._raised: set[int] = set()

    def raise_for(self, pids: Iterable[int]) -> None:
        """Raise the scores of these pricers and of what they have started; the rest of what they start inherits it."""
        pids = set(pids)
        self._raised &= pids
        for pid in pids - self._raised:
            for each in _with_descendants(pid):
                with contextlib.suppress(OSError), open(f"/proc/{each}/oom_score_adj", "wb", buffering=0) as file:
                    file.write(b"%d" % self._score)
            self._raised.add(pid)


def _with_descendants(pid: int) -> Iterator[int]:
    waiting = [pid]
    while waiting:
        yield (parent := waiting.pop())
        waiting += children_of(parent)
