"""Nodes that are kept for one job each: a job that was killed when its node ran out of memory runs alone.

Such a job needs a node that holds nothing else. No node may be empty by itself on a busy grid, so one is kept for the
job: it gets no further attempts, and the job starts there once what the node still holds has ended. To leave room for
other jobs, at most a quarter of the group's nodes are kept at once. While other jobs wait, a node is kept for a bounded
time only, twice as long with each try, and then takes other jobs for as long again before it is kept anew: what runs
there may run for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

from raygrid.core.group.entry import Entry
from raygrid.core.group.placement import NodeRecord

LOOK_AGAIN_S = 0.5  # a job for which no node can be kept now is looked at again after this long
FIRST_KEPT_S = 10.0  # while other jobs wait; then twice as long with each try
MOST_KEPT_S = 640.0


@dataclass(frozen=True, slots=True)
class _Kept:
    job_id: str
    since: float


class Alone:
    """Which nodes are kept, and for which jobs.

    Args:
        nodes: the group's nodes; read whenever one is chosen.
        touch: called with the name of a node that begins or ceases to be kept.
    """

    def __init__(self, nodes: Mapping[str, NodeRecord], touch: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._touch = touch
        self._kept: dict[str, _Kept] = {}  # by node
        self._shared_until: dict[str, float] = {}  # by node
        self._patience: dict[str, float] = {}  # by job: how long a node is kept for it the next time

    def __bool__(self) -> bool:
        """Whether any node is kept."""
        return bool(self._kept)

    def __contains__(self, job_id: object) -> bool:
        """Whether a node is kept for the job."""
        return any(kept.job_id == job_id for kept in self._kept.values())

    def ready(
        self, jobs: Mapping[str, Entry], aside: Container[str], now: float, *, others_wait: bool
    ) -> Iterator[tuple[NodeRecord, Entry]]:
        """Give up nodes that need not be kept any longer; gives the jobs that can start, each with its node.

        Args:
            jobs: the group's unfinished jobs.
            aside: ids of those that cannot be started as things stand.
            now: the instant.
            others_wait: whether jobs wait that could run beside others.
        """
        for job_id in [each for each in self._patience if each not in jobs]:
            del self._patience[job_id]
        for node_id, kept in list(self._kept.items()):
            node, entry = self._nodes.get(node_id), jobs.get(kept.job_id)
            if node is None or node.alone_for != kept.job_id or entry is None:
                self._give_up(node_id, now)
            elif entry.node_id == node_id:
                continue  # it runs there
            elif entry.node_id is not None or kept.job_id in aside or not _is_usable(node, now):
                self._give_up(node_id, now)
            elif not node.used:
                yield node, entry
            elif others_wait and now - kept.since >= (patience := self._patience.get(kept.job_id, FIRST_KEPT_S)):
                self._patience[kept.job_id] = min(2 * patience, MOST_KEPT_S)
                self._give_up(node_id, now)

    def keep_node(self, entry: Entry, now: float, *, others_wait: bool) -> bool:
        """Keep a node for a job that waits, unless there is one already; gives whether there is one now.

        The node with the most memory is kept, and of several the one with the most free slots; one on which the job
        has not failed comes first.

        Args:
            entry: the job.
            now: the instant.
            others_wait: whether jobs wait that could run beside others.
        """
        if entry.spec.job_id in self:
            return True
        usable = [node for node in self._nodes.values() if _is_usable(node, now)]
        if len(self._kept) >= max(1, len(usable) // 4):
            return False
        free = [
            node
            for node in usable
            if node.alone_for is None
            and not ((others_wait or node.used) and now < self._shared_until.get(node.node_id, 0.0))
        ]
        if not free:
            return False

        def fitness(node: NodeRecord) -> tuple[bool, bool, int, int, str]:
            fresh = node.node_id not in entry.failed_on
            return not node.is_blocked(entry.spec.pricer, now), fresh, node.memory, node.free, node.node_id

        node = max(free, key=fitness)
        node.alone_for = entry.spec.job_id
        self._kept[node.node_id] = _Kept(entry.spec.job_id, now)
        self._touch(node.node_id)
        return True

    def _give_up(self, node_id: str, now: float) -> None:
        kept = self._kept.pop(node_id)
        node = self._nodes.get(node_id)
        if node is None:
            self._shared_until.pop(node_id, None)
            return
        if node.alone_for == kept.job_id:
            node.alone_for = None
        self._shared_until[node_id] = now + min(now - kept.since, MOST_KEPT_S)
        self._touch(node_id)


def _is_usable(node: NodeRecord, now: float) -> bool:
    return node.state(now) == "ok" and node.slots > 0 and not node.behind
