"""An index of the nodes that have room, kept between events, so that a decision costs the same with many nodes.

`GroupState` marks changed nodes (`touch`); only these, and nodes on probation, are evaluated again before the next
choice. The choices equal those of a `placement` policy over all nodes with room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from raygrid.core.group.placement import NodeRecord, Policy, least_loaded
from raygrid.core.sorted_names import SortedNames

Suits = Callable[[NodeRecord], bool]


class Vacancies:
    """The nodes with room.

    Args:
        nodes: the group's nodes, by name.

    Attributes:
        used: attempts that all nodes hold, as of the last `settle`.
    """

    def __init__(self, nodes: Mapping[str, NodeRecord]) -> None:
        self.used = 0
        self._nodes = nodes
        self._roomy = SortedNames()  # by free slots, the order of `least_loaded`
        self._touched: set[str] = set()
        self._on_probation: set[str] = set()  # their room changes with time
        self._blocked: set[str] = set()  # nodes with failed starts of a pricer
        self._used: dict[str, int] = {}
        self._factor = 0

    def __bool__(self) -> bool:
        """Whether any node has room."""
        return len(self._roomy) > 0

    def touch(self, node_id: str) -> None:
        """Mark a node that was added, removed or changed."""
        self._touched.add(node_id)

    def settle(self, now: float, prefetch_factor: int) -> None:
        """Evaluate again the nodes that may have changed."""
        if prefetch_factor != self._factor:
            self._factor = prefetch_factor
            self._touched.update(self._nodes)
        if self._touched or self._on_probation:
            for node_id in self._touched | self._on_probation:
                self._look_at(node_id, now)
            self._touched.clear()

    def _look_at(self, node_id: str, now: float) -> None:
        node = self._nodes.get(node_id)
        self.used -= self._used.pop(node_id, 0)
        self._on_probation.discard(node_id)
        self._blocked.discard(node_id)
        if node is None:
            self._roomy.drop(node_id)
            return
        self._used[node_id] = node.used
        self.used += node.used
        if node.probation_until is not None:
            self._on_probation.add(node_id)
        if node.blocked:
            self._blocked.add(node_id)
        if node.room(now, self._factor) > 0:
            self._roomy.put(node_id, node.free)
        else:
            self._roomy.drop(node_id)

    def any(self, suits: Suits) -> bool:
        """Whether a node with room suits."""
        return any(suits(self._nodes[node_id]) for node_id in self._roomy)

    def pick(
        self, choose: Policy, failed_on: Set[str], runs: str, now: float, joins: Suits | None = None
    ) -> NodeRecord | None:
        """Choose a node with room for a job; nodes on which it has not failed are preferred.

        Args:
            choose: the policy.
            failed_on: names of the nodes on which the job has failed.
            runs: what the job runs (`Entry.runs`).
            now: the instant.
            joins: whether a node is suitable; if given, at least one node with room must be.

        Returns:
            The node; None if the job should wait for a preferred node that is full now.
        """
        if not failed_on and not self._blocked:
            return self._choose(choose, joins)

        def fresh(node: NodeRecord) -> bool:
            return node.node_id not in failed_on and not node.is_blocked(runs, now)

        node = self._choose(choose, lambda node: fresh(node) and (joins is None or joins(node)))
        if node is not None:
            return node
        waiting_helps = any(
            fresh(node) and node.state(now) == "ok" and node.reserved_for is None for node in self._nodes.values()
        )
        return None if waiting_helps else self._choose(choose, joins)

    def _choose(self, choose: Policy, suits: Suits | None) -> NodeRecord | None:
        if choose is least_loaded:
            for node_id in reversed(self._roomy):
                node = self._nodes[node_id]
                if suits is None or suits(node):
                    return node
            return None
        roomy = [node for node_id, node in self._nodes.items() if node_id in self._roomy]
        fit = roomy if suits is None else [node for node in roomy if suits(node)]
        return choose(fit) if fit else None
