"""The System V shared memory of attempts: what counts as theirs, and the removal of what they leave.

In an IPC namespace of its own an attempt owns every segment, as it owns its `/dev/shm`; they end with the namespace.
There the kernel's memory for semaphores and messages counts, too; elsewhere nothing shows whose they are. In the
agent's namespace, which pricers without a sandbox use, the segments that its processes made are its own. A segment does
not end with them, so that the watchdog removes it afterwards.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable

from raygrid.system.ipc_tables import SemaphoresAndMessages
from raygrid.system.proc import start_time
from raygrid.system.shared_segments import Segment, SegmentTable, remove_segment


class AttemptSegments:
    """The segments of one attempt.

    Args:
        table: those of its IPC namespace.
        others: semaphores and messages of that namespace, if it is its sandbox's own; None if it is the agent's.
    """

    def __init__(self, table: SegmentTable, others: SemaphoresAndMessages | None) -> None:
        self._table = table
        self._others = others
        self.own_namespace = others is not None
        self._since = int(time.time())
        self._pids: set[int] = set()

    def note(self, pids: Iterable[int]) -> None:
        """Note processes of the attempt: what they made is its own after they have ended, too."""
        if not self.own_namespace:
            self._pids.update(pids)

    def used(self) -> int:
        """The bytes of its segments."""
        return sum(each.used for each in self._table.now() if self._counts(each))

    def used_by_kernel(self) -> int:
        """The bytes of semaphores and messages, which are in no process and no file."""
        return self._others.used() if self._others is not None else 0

    def made(self, segments: Iterable[Segment]) -> list[Segment]:
        """Those that a process of the attempt made since it began."""
        return [each for each in segments if each.creator in self._pids and each.changed_at >= self._since]

    def _counts(self, segment: Segment) -> bool:
        """Whether it counts: one that is older may be data that another program provides to all jobs."""
        if self.own_namespace:
            return True
        known = segment.creator in self._pids or segment.last_user in self._pids
        return known and segment.changed_at >= self._since


class LeftSegments:
    """Removes what ended attempts left in the agent's namespace; `ended` can be called by any thread.

    A segment that is attached, or whose creator still runs, may belong to a helper that later jobs use. It is removed
    when that has ended.
    """

    def __init__(self) -> None:
        self._table = SegmentTable()
        self._ended: list[AttemptSegments] = []
        self._left: dict[int, int] = {}  # the creators of segments, by number
        self._lock = threading.Lock()

    def ended(self, segments: AttemptSegments) -> None:
        """Remove the segments of an attempt, whose processes were noted, at the next look."""
        if not segments.own_namespace:
            with self._lock:
                self._ended.append(segments)

    def look(self) -> None:
        """Remove those that no process uses any more."""
        with self._lock:
            ended, self._ended = self._ended, []
        if not ended and not self._left:
            return
        there = {segment.id: segment for segment in self._table.now()}
        for attempt in ended:
            self._left.update({each.id: each.creator for each in attempt.made(there.values())})
        for number, creator in list(self._left.items()):
            found = there.get(number)
            if found is None or found.creator != creator:
                del self._left[number]
            elif found.attached == 0 and start_time(creator) is None:
                with contextlib.suppress(OSError):  # removed meanwhile
                    remove_segment(number)
                del self._left[number]

    def close(self) -> None:
        """Remove what can be removed now, and close the table."""
        self.look()
        self._table.close()
