"""The nodes of a group that have room, kept from event to event, so that a decision costs the same among many nodes.

`GroupState` says which nodes have changed (`touch`); only these, and those on probation, are looked at again before
the next choice. The choices are exactly those that `placement` describes over all nodes with room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from raygrid.core.group.placement import NodeRecord, Policy, least_loaded
from raygrid.core.ordered import Ordered

Suits = Callable[[NodeRecord], bool]


class Vacancies:
    """Where there is room.

    Args:
        nodes: the group's nodes; read whenever they are looked at again.

    Attributes:
        used: attempts that all nodes hold, as of the last `settle`.
    """

    def __init__(self, nodes: Mapping[str, NodeRecord]) -> None:
        self.used = 0
        self._nodes = nodes
        self._roomy = Ordered()  # by free slots, which is what `least_loaded` goes by
        self._touched: set[str] = set()
        self._on_probation: set[str] = set()  # their room changes with time alone
        self._blocked: set[str] = set()  # pricers could not be started there lately
        self._used: dict[str, int] = {}
        self._factor = 0

    def __bool__(self) -> bool:
        """Whether any node has room."""
        return len(self._roomy) > 0

    def touch(self, node_id: str) -> None:
        """A node has come, gone or changed: how much it holds, takes, or is trusted."""
        self._touched.add(node_id)

    def settle(self, now: float, prefetch_factor: int) -> None:
        """Look again at what may have changed."""
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
        """A node with room for a job, one on which it has not failed where there is any.

        Args:
            choose: the policy.
            failed_on: names of the nodes on which the job has failed.
            runs: what the job runs (`Entry.runs`).
            now: the instant.
            joins: which nodes will do at all; one with room has to, where it is given.

        Returns:
            The node; None where it is better to wait for one that is full now.
        """
        if not failed_on and not self._blocked:
            return self._choose(choose, joins)

        def fresh(node: NodeRecord) -> bool:
            return node.node_id not in failed_on and not node.is_blocked(runs, now)

        node = self._choose(choose, lambda node: fresh(node) and (joins is None or joins(node)))
        if node is not None:
            return node
        waiting_helps = any(
            fresh(node) and node.state(now) == "ok" and node.alone_for is None for node in self._nodes.values()
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
