"""Reserves nodes for jobs that must run alone: a job that was killed because its node ran out of memory.

Such a job needs a node that holds no other attempt. On a busy grid no node may become empty, so one is reserved: it
gets no further attempts, and the job starts there once the attempts that it holds have ended. At most a quarter of the
group's nodes are reserved at once, to leave room for other jobs. The attempts on a reserved node may run for hours, so
while other jobs wait, a reservation has a time limit, which doubles with each try. After that the node takes other jobs
for as long as it was reserved, and may then be reserved again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

from raygrid.core.group.entry import Entry
from raygrid.core.group.placement import NodeRecord

RETRY_RESERVATION_S = 0.5  # delay before the next try for a job for which no node can be reserved now
FIRST_RESERVATION_S = 10.0  # time limit while other jobs wait; it doubles with each try
LONGEST_RESERVATION_S = 640.0


@dataclass(frozen=True, slots=True)
class _Reservation:
    job_id: str
    since: float


class NodeReservations:
    """The reserved nodes, and the job that each is reserved for.

    Args:
        nodes: the group's nodes; read for every choice.
        touch: called with the name of a node whose reservation begins or ends.
    """

    def __init__(self, nodes: Mapping[str, NodeRecord], touch: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._touch = touch
        self._reserved: dict[str, _Reservation] = {}  # by node
        self._shared_until: dict[str, float] = {}  # by node
        self._time_limit_s: dict[str, float] = {}  # by job: of its next reservation

    def __bool__(self) -> bool:
        """Whether any node is reserved."""
        return bool(self._reserved)

    def __contains__(self, job_id: object) -> bool:
        """Whether a node is reserved for the job."""
        return any(reservation.job_id == job_id for reservation in self._reserved.values())

    def ready(
        self, jobs: Mapping[str, Entry], aside: Container[str], now: float, *, others_wait: bool
    ) -> Iterator[tuple[NodeRecord, Entry]]:
        """End the reservations that are no longer needed, and yield each job that can start, with its node.

        Args:
            jobs: the group's unfinished jobs.
            aside: ids of jobs that cannot start now.
            now: the instant.
            others_wait: whether jobs wait that need no reserved node.
        """
        for job_id in [each for each in self._time_limit_s if each not in jobs]:
            del self._time_limit_s[job_id]
        for node_id, reservation in list(self._reserved.items()):
            job_id = reservation.job_id
            node, entry = self._nodes.get(node_id), jobs.get(job_id)
            limit_s = self._time_limit_s.get(job_id, FIRST_RESERVATION_S)
            if node is None or node.reserved_for != job_id or entry is None:
                self._end(node_id, now)
            elif entry.node_id == node_id:
                continue  # the job runs there
            elif entry.node_id is not None or job_id in aside or not _is_usable(node, now):
                self._end(node_id, now)
            elif not node.used:
                yield node, entry
            elif others_wait and now - reservation.since >= limit_s:
                self._time_limit_s[job_id] = min(2 * limit_s, LONGEST_RESERVATION_S)
                self._end(node_id, now)

    def reserve(self, entry: Entry, now: float, *, others_wait: bool) -> bool:
        """Reserve a node for a waiting job that has none; return whether one is reserved.

        Nodes on which the job has not failed are preferred, then the node with the most memory, then the one with the
        most free slots.

        Args:
            entry: the job.
            now: the instant.
            others_wait: whether jobs wait that need no reserved node.
        """
        if entry.spec.job_id in self:
            return True
        usable = [node for node in self._nodes.values() if _is_usable(node, now)]
        if len(self._reserved) >= max(1, len(usable) // 4):
            return False
        free = [
            node
            for node in usable
            if node.reserved_for is None
            and not ((others_wait or node.used) and now < self._shared_until.get(node.node_id, 0.0))
        ]
        if not free:
            return False

        def fitness(node: NodeRecord) -> tuple[bool, bool, int, int, str]:
            fresh = node.node_id not in entry.failed_on
            return not node.is_blocked(entry.spec.pricer, now), fresh, node.memory, node.free, node.node_id

        node = max(free, key=fitness)
        node.reserved_for = entry.spec.job_id
        self._reserved[node.node_id] = _Reservation(entry.spec.job_id, now)
        self._touch(node.node_id)
        return True

    def _end(self, node_id: str, now: float) -> None:
        reservation = self._reserved.pop(node_id)
        node = self._nodes.get(node_id)
        if node is None:
            self._shared_until.pop(node_id, None)
            return
        if node.reserved_for == reservation.job_id:
            node.reserved_for = None
        self._shared_until[node_id] = now + min(now - reservation.since, LONGEST_RESERVATION_S)
        self._touch(node_id)


def _is_usable(node: NodeRecord, now: float) -> bool:
    return node.state(now) == "ok" and node.slots > 0 and not node.behind
