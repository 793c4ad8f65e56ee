"""Choosing a node inside a group, and what the group remembers of each node for it.

Two policies: `least_loaded` takes the node with most free slots; `weighted_round_robin` is the smooth kind
(each node gains its weight per turn, the richest is taken and pays the total), as known from nginx.
Unhealthy and draining nodes are left out. A node on which attempt after attempt fails for the grid's reasons
("black hole": it would swallow the whole queue, because failing is fast) goes on probation: nothing for a
while, then one attempt at a time until one succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from raygrid.models import NO_TRAFFIC, AttemptId, NodeTraffic

# A node may hold this many seconds of work beyond its slots, so that slots do not idle for a round trip.
PREFETCH_S = 0.2
PREFETCH_LIMIT = 256


@dataclass(slots=True, eq=False)
class NodeRecord:
    """What a leader remembers of a node.

    Attributes:
        held: attempts handed over, in that order, each with the instant at which the node confirmed it (infinity
            while the hand-over is under way).
        uncertain: attempts whose hand-over failed, so that only the node's next reply tells whether they arrived.
        foreign: attempts that the node holds for somebody else (a leader before this one).
        deployed_at: stamp of the settings that it follows; `behind` while they are older than the group's.
        failures: infrastructure failures in a row; `probations` in a row make each longer.
        blocked: by `Entry.runs`, failed starts in a row and until when other nodes are preferred for it.
        memory: bytes of memory of its machine; 0 where that is not known.
        alone_for: the job that the node is kept for; no other is handed to it until that one has ended.
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
    alone_for: str | None = None

    @property
    def used(self) -> int:
        """Attempts it holds, those of another leader's included."""
        return len(self.held) + self.foreign

    @property
    def free(self) -> int:
        """Slots without an attempt; negative while attempts wait on the node."""
        return self.slots - self.used

    def prefetch(self, factor: int) -> int:
        """How many attempts beyond its slots are worth handing over: about `PREFETCH_S` of work.

        Long jobs get none, so that none waits behind a long one while another node is idle.
        """
        if not factor or not self.mean_s or self.mean_s >= PREFETCH_S:
            return 0
        return min(PREFETCH_LIMIT, factor * int(self.slots * PREFETCH_S / self.mean_s))

    def room(self, now: float, prefetch_factor: int) -> int:
        """How many more attempts it may be handed now."""
        if not self.healthy or self.draining or self.behind or self.alone_for is not None:
            return 0
        if self.probation_until is not None:
            return 0 if now < self.probation_until else max(0, 1 - self.used)
        return max(0, self.slots + self.prefetch(prefetch_factor) - self.used)

    def saw_duration(self, seconds: float) -> None:
        """Learn how long attempts take here; recent ones weigh more."""
        seconds = max(seconds, 1e-3)
        self.mean_s = seconds if self.mean_s is None else 0.8 * self.mean_s + 0.2 * seconds

    def saw_at_least(self, seconds: float) -> None:
        """Attempts here take this long or longer now, whatever they took before."""
        self.mean_s = max(seconds, self.mean_s or 0.0)

    def succeeded(self, runs: str) -> None:
        """An attempt ran properly here: whatever was held against the node is forgotten."""
        self.failures = self.probations = 0
        self.probation_until = None
        self.blocked.pop(runs, None)

    def failed(self, now: float, after: int, probation_s: float) -> None:
        """An attempt failed for the grid's reasons; after several in a row the node goes on probation."""
        self.failures += 1
        if self.failures >= after:
            self.probation_until = now + probation_s * 2 ** min(self.probations, 4)
            self.probations += 1
            self.failures = after - 1  # one more failure after the probation is enough

    def could_not_start(self, runs: str, now: float, after: int, probation_s: float) -> None:
        """A pricer could not be started here: after several in a row, others are preferred for that pricer."""
        count, _ = self.blocked.get(runs, (0, 0.0))
        self.blocked[runs] = (count + 1, now + probation_s if count + 1 >= after else 0.0)

    def is_blocked(self, runs: str, now: float) -> bool:
        """Whether that pricer keeps failing to start here."""
        entry = self.blocked.get(runs)
        return entry is not None and now < entry[1]

    def state(self, now: float) -> str:
        """One word for people: ok, draining, drained, unhealthy or probation."""
        if self.draining:
            return "draining" if self.used else "drained"
        if not self.healthy:
            return "unhealthy"
        if self.probation_until is not None and now < self.probation_until:
            return "probation"
        return "ok"


Policy = Callable[[list[NodeRecord]], NodeRecord]


def least_loaded(nodes: list[NodeRecord]) -> NodeRecord:
    """The node with most free slots; the name decides among equals."""
    return max(nodes, key=lambda node: (node.free, node.node_id))


def weighted_round_robin(nodes: list[NodeRecord]) -> NodeRecord:
    """Smooth weighted round robin: in proportion to weight times slots, never in bursts."""
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
    """The nodes that may be handed an attempt now."""
    return [node for node in nodes if node.room(now, prefetch_factor) > 0]
