"""Placement: choosing a node in a group, and the record of each node.

Two policies: `least_loaded` takes the node with the most free slots; `weighted_round_robin` is the smooth variant known
from nginx (per turn each node gains its weight; the node with the most credit is chosen and pays the total). Unhealthy
and draining nodes are left out. A node with several infrastructure failures in a row is a "black hole": failing is
fast, so it would take the whole queue. It goes on probation: no attempts for a while, then one at a time until one
succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from raygrid.core.sandbox_state import NO_SANDBOX, SandboxState
from raygrid.models import NO_TRAFFIC, AttemptId, NodeTraffic

PREFETCH_S = 0.2  # a node may hold this much work beyond its slots, so that slots do not idle for a round trip
PREFETCH_LIMIT = 256


@dataclass(slots=True, eq=False)
class NodeRecord:
    """A leader's record of a node.

    Attributes:
        held: attempts handed over, in that order, each with the instant at which the node confirmed it (infinity
            while the hand-over is in progress).
        uncertain: attempts whose hand-over failed; the node's next reply shows whether they arrived.
        foreign: attempts of an earlier leader that the node holds.
        deployed_at: deployment time of the node's settings; `behind` if they are older than the group's.
        failures: infrastructure failures in a row.
        probations: probations in a row; each one is longer.
        blocked: by `Entry.runs`: failed starts in a row, and until when other nodes are preferred.
        memory: bytes of memory of its machine; 0 if unknown.
        sandbox: what keeps its pricers from harming the grid.
        reserved_for: the job that the node is reserved for; it gets no other attempts.
    """

    node_id: str
    incarnation: str
    slots: int
    last_seen: float
    weight: float = 1.0
    held: dict[AttemptId, float] = field(default_factory=dict)
    uncertain: set[AttemptId] = field(default_factory=set)
    foreign: int = 0
    address: str = ""
    traffic: NodeTraffic = NO_TRAFFIC
    healthy: bool = True
    why: str | None = None
    draining: bool = False
    drain_deadline_at: float | None = None
    deployed_at: float = 0.0
    behind: bool = False
    failures: int = 0
    probation_until: float | None = None
    probations: int = 0
    credit: float = 0.0
    mean_s: float | None = None
    blocked: dict[str, tuple[int, float]] = field(default_factory=dict)
    memory: int = 0
    sandbox: SandboxState = NO_SANDBOX
    reserved_for: str | None = None

    @property
    def used(self) -> int:
        """Attempts that the node holds, including those of an earlier leader."""
        return len(self.held) + self.foreign

    @property
    def free(self) -> int:
        """Slots without an attempt; negative while attempts wait on the node."""
        return self.slots - self.used

    def drop(self, attempt: AttemptId) -> None:
        """Remove an attempt from the record."""
        self.held.pop(attempt, None)
        self.uncertain.discard(attempt)

    def prefetch(self, factor: int) -> int:
        """How many attempts to hand over beyond the slots: about `PREFETCH_S` of work.

        With long jobs it is none, so that no job waits behind a long one while another node is idle.
        """
        if not factor or not self.mean_s or self.mean_s >= PREFETCH_S:
            return 0
        return min(PREFETCH_LIMIT, factor * int(self.slots * PREFETCH_S / self.mean_s))

    def room(self, now: float, prefetch_factor: int) -> int:
        """How many more attempts the node may get now."""
        if not self.healthy or self.draining or self.behind or self.reserved_for is not None:
            return 0
        if self.probation_until is not None:
            return 0 if now < self.probation_until else max(0, 1 - self.used)
        return max(0, self.slots + self.prefetch(prefetch_factor) - self.used)

    def record_duration(self, seconds: float) -> None:
        """Update the mean duration of attempts on this node; recent ones weigh more."""
        seconds = max(seconds, 1e-3)
        self.mean_s = seconds if self.mean_s is None else 0.8 * self.mean_s + 0.2 * seconds

    def raise_mean(self, seconds: float) -> None:
        """Raise the mean duration to at least this value."""
        self.mean_s = max(seconds, self.mean_s or 0.0)

    def succeeded(self, runs: str) -> None:
        """Record a successful attempt: clears failures, probation and the block of what it ran."""
        self.failures = self.probations = 0
        self.probation_until = None
        self.blocked.pop(runs, None)

    def failed(self, now: float, after: int, probation_s: float) -> None:
        """Record an infrastructure failure; after several in a row the node goes on probation."""
        self.failures += 1
        if self.failures >= after:
            self.probation_until = now + probation_s * 2 ** min(self.probations, 4)
            self.probations += 1
            self.failures = after - 1  # one more failure after the probation is enough

    def could_not_start(self, runs: str, now: float, after: int, probation_s: float) -> None:
        """Record a failed start of a pricer; after several in a row, other nodes are preferred for it."""
        count, _ = self.blocked.get(runs, (0, 0.0))
        self.blocked[runs] = (count + 1, now + probation_s if count + 1 >= after else 0.0)

    def is_blocked(self, runs: str, now: float) -> bool:
        """Whether other nodes are preferred for what runs, because it failed to start here."""
        entry = self.blocked.get(runs)
        return entry is not None and now < entry[1]

    def state(self, now: float) -> str:
        """The node's state as users see it: ok, draining, drained, unhealthy or probation."""
        if self.draining:
            return "draining" if self.used else "drained"
        if not self.healthy:
            return "unhealthy"
        if self.probation_until is not None and now < self.probation_until:
            return "probation"
        return "ok"


Policy = Callable[[list[NodeRecord]], NodeRecord]


def least_loaded(nodes: list[NodeRecord]) -> NodeRecord:
    """Choose the node with the most free slots; among equals, the greatest name."""
    return max(nodes, key=lambda node: (node.free, node.node_id))


def weighted_round_robin(nodes: list[NodeRecord]) -> NodeRecord:
    """Choose nodes in proportion to weight times slots, without bursts (smooth weighted round robin)."""
    total = 0.0
    for node in nodes:
        gain = node.weight * node.slots
        node.credit += gain
        total += gain
    chosen = max(nodes, key=lambda node: (node.credit, node.node_id))
    chosen.credit -= total
    return chosen


POLICIES: dict[str, Policy] = {"least_loaded": least_loaded, "weighted_round_robin": weighted_round_robin}


def with_room(nodes: Iterable[NodeRecord], now: float, prefetch_factor: int) -> list[NodeRecord]:
    """The nodes that may get an attempt now."""
    return [node for node in nodes if node.room(now, prefetch_factor) > 0]
