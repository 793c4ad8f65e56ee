"""A group under random faults: random events over model nodes, and what must hold after every single one.

The model has the state that a real grid has: what each node runs, which messages are on their way, what the store
holds. Messages are late, lost or repeated, nodes die, fall silent and come back, leaders change. In the end everything
heals, and every job must have ended.
"""

# ruff: noqa: D101 - rules and invariants are named after what they do

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raygrid.core.attempt_counts import NO_ATTEMPTS, AttemptCounts
from raygrid.core.group.entry import Entry
from raygrid.core.group.events import (
    CancelRequested,
    Event,
    HandOverEnded,
    JobsArrived,
    NodeDraining,
    NodeHeard,
    NodeLost,
    NodeReported,
    PolicyChanged,
    StartAttempts,
    StopAttempts,
    Tick,
    WriteUpdates,
)
from raygrid.core.group.load import GroupLoad
from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.retry import JobRetryPolicy
from raygrid.core.group.state import GroupState
from raygrid.core.group.stragglers import LEAST_KNOWN, StragglerPolicy, most_at_once
from raygrid.core.lifecycle import MOVES
from raygrid.models import (
    INFRASTRUCTURE_OUTCOMES,
    AttemptId,
    AttemptReport,
    BlobSlice,
    JobSpec,
    JobState,
    JobUpdate,
    NodeState,
    Outcome,
    QueuedJob,
)

MOSTLY = st.sampled_from([True, True, True, True, False])
NODES = ["n1", "n2", "n3"]
OUTCOMES = [
    (Outcome.EXITED, 0),
    (Outcome.EXITED, 75),
    (Outcome.EXITED, 1),
    *((o, None) for o in Outcome if o is not Outcome.EXITED),
]


@dataclass
class Node:
    """The real state of a node."""

    slots: int
    life: int = 1
    has: list[AttemptId] = field(default_factory=list)
    reports: list[AttemptReport] = field(default_factory=list)  # repeated in every reply until one arrived
    reply: NodeReported | None = None  # on its way to the leader
    deployed_at: float = 0.0


@dataclass
class Row:
    """The store's row of a job."""

    spec: JobSpec
    state: JobState = JobState.QUEUED
    counts: AttemptCounts = NO_ATTEMPTS
    node_id: str | None = None
    cancel_requested: bool = False


class GroupInAHostileWorld(RuleBasedStateMachine):
    @initialize(
        quota=st.sampled_from([None, 2]),
        prefetch=st.sampled_from([0, 1]),
        window=st.sampled_from([3, 100]),
        placement=st.sampled_from(["least_loaded", "weighted_round_robin"]),
        slots=st.lists(st.integers(1, 3), min_size=3, max_size=3),
        doubles=st.booleans(),
    )
    def begin(
        self, quota: int | None, prefetch: int, window: int, placement: str, slots: list[int], doubles: bool
    ) -> None:
        retry = JobRetryPolicy(retry_exit_codes={"p": frozenset({75})})
        self.policy = GroupPolicy(quota=quota, prefetch=prefetch, window=window, placement=placement, retry=retry)
        if doubles:
            self.policy = replace(self.policy, stragglers={"p": StragglerPolicy(1.0, 0.5)})
        self.first_policy = self.policy = replace(self.policy, pricers=frozenset({"p", "q"}))
        self.state = GroupState("rack-a", self.policy)
        self.now = 1_000.0
        self.store: dict[str, Row] = {}
        self.nodes = {name: Node(count) for name, count in zip(NODES, slots, strict=True)}
        self.hand_overs: list[StartAttempts] = []
        self.stops: list[StopAttempts] = []
        self.ended_by_this_leader: set[str] = set()
        self.started: dict[str, int] = {}  # highest attempt that this leader started
        self.learn()
        for name in NODES:
            self.poll(name, healthy=True)
            self.reply(name, arrives=True, acknowledged=True)

    def learn(self) -> None:
        """Let jobs of pricer p usually take a tenth of a second."""
        for _ in range(LEAST_KNOWN):
            self.state._usual.add("p", 0.1)

    # --- the leader's side ----------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        self.now += 0.01
        for command in self.state.handle(event, self.now):
            match command:
                case WriteUpdates(updates):
                    for update in updates:
                        self.write(update)
                case StopAttempts():
                    self.stops.append(command)
                case StartAttempts(node_id, orders):
                    self.hand_overs.append(command)
                    for order in orders:
                        job_id, number = order.attempt
                        assert number > self.started.get(job_id, 0)
                        assert number >= self.store[job_id].counts.started
                        self.started[job_id] = number
                    record = self.state.nodes[node_id]
                    assert record.used <= record.slots + record.prefetch(self.policy.prefetch)
                    assert record.healthy
                    assert not record.draining
                    assert record.deployed_at >= self.state.policy.deployed_at
                    assert self.state.policy.pricers is not None
                    assert all(order.spec.pricer in self.state.policy.pricers for order in orders)
                    if self.state.policy.quota is not None:
                        assert sum(node.used for node in self.state.nodes.values()) <= self.state.policy.quota

    def write(self, update: JobUpdate) -> None:
        assert update.job_id not in self.ended_by_this_leader, "a job ended twice, or moved after its end"
        if update.state.is_terminal:
            self.ended_by_this_leader.add(update.job_id)
        row = self.store[update.job_id]
        if row.state.is_terminal:
            return  # the store refuses it
        assert update.state in MOVES[row.state], (row.state, update.state)
        assert update.counts.started >= row.counts.started or update.state is JobState.CANCELLED
        row.state, row.node_id = update.state, update.node_id
        if update.counts.started >= row.counts.started:
            row.counts = update.counts
        assert row.counts.losses <= row.counts.failures
        assert row.counts.recalled <= row.counts.started
        assert row.counts.unstarted <= row.counts.started

    def unfinished(self, *, running: bool) -> tuple[QueuedJob, ...]:
        state = JobState.RUNNING if running else JobState.QUEUED
        return tuple(self.as_stored(row) for row in self.store.values() if row.state is state)

    @staticmethod
    def as_stored(row: Row) -> QueuedJob:
        return QueuedJob(row.spec, row.counts, row.node_id, row.state is JobState.RUNNING, row.cancel_requested)

    # --- what may happen ------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 3), priority=st.integers(0, 1), poked=st.booleans(), pricer=st.sampled_from("ppq"))
    def submit(self, count: int, priority: int, poked: bool, pricer: str) -> None:
        specs = [
            JobSpec(f"j{len(self.store) + i}", pricer, "1", BlobSlice("", 0, 0, ""), priority=priority)
            for i in range(count)
        ]
        self.store.update({spec.job_id: Row(spec) for spec in specs})
        if poked:
            self.handle(JobsArrived(tuple(QueuedJob(spec) for spec in specs)))

    @rule()
    def scan(self) -> None:
        self.handle(JobsArrived(self.unfinished(running=False), scanned=True))

    @precondition(lambda self: self.store)
    @rule(data=st.data(), decided=st.booleans())
    def cancel(self, data: st.DataObject, decided: bool) -> None:
        row = self.store[data.draw(st.sampled_from(sorted(self.store)))]
        row.cancel_requested |= not row.state.is_terminal
        if decided and row.cancel_requested:
            self.handle(CancelRequested((row.spec.job_id,)))

    @rule(name=st.sampled_from(NODES), healthy=st.booleans())
    def poll(self, name: str, healthy: bool) -> None:
        self.now += 0.01
        node = self.nodes[name]
        node_state = NodeState(name, f"life-{node.life}", node.slots, tuple(node.has), healthy=healthy)
        node_state = replace(node_state, deployed_at=node.deployed_at)
        node.reply = NodeReported(node_state, tuple(node.reports), asked_at=self.now)

    @rule(name=st.sampled_from(NODES), arrives=st.booleans(), acknowledged=st.booleans(), looked_up=MOSTLY)
    def reply(self, name: str, arrives: bool, acknowledged: bool, looked_up: bool = True) -> None:
        node = self.nodes[name]
        reply, node.reply = node.reply, None
        if reply is None or not arrives or reply.state.incarnation != f"life-{node.life}":
            return
        spoken_of = {attempt.job_id for attempt in reply.state.running} | {r.attempt.job_id for r in reply.reports}
        asked = sorted(job_id for job_id in spoken_of if self.state.is_unknown(job_id))
        if asked and not looked_up:
            self.handle(NodeHeard(name))
            return
        found = tuple(self.as_stored(self.store[i]) for i in asked if not self.store[i].state.is_terminal)
        gone = tuple(i for i in asked if self.store[i].state.is_terminal)
        self.handle(replace(reply, found=found, gone=gone))
        for report in reply.reports:
            if report.outcome not in INFRASTRUCTURE_OUTCOMES and report.outcome is not Outcome.CANCELLED:
                row = self.store[report.attempt.job_id]
                assert row.state.is_terminal or report.exit_code == 75, "an answer was heard and forgotten"
        if acknowledged:
            node.reports = [report for report in node.reports if report not in reply.reports]

    @rule(
        name=st.sampled_from(NODES),
        arrives=MOSTLY,
        answered=MOSTLY,
        ends=st.booleans(),
        answer=st.sampled_from(OUTCOMES),
        replies=MOSTLY,
        acknowledged=MOSTLY,
    )
    def a_turn_of_a_node(
        self,
        name: str,
        arrives: bool,
        answered: bool,
        ends: bool,
        answer: tuple[Outcome, int | None],
        replies: bool,
        acknowledged: bool,
    ) -> None:
        """The most frequent course: a node gets its attempts, the oldest ends, and a poll brings the report."""
        for start in [start for start in self.hand_overs if start.node_id == name]:
            self.deliver(start, arrives, answered)
        node = self.nodes[name]
        node.deployed_at = max(node.deployed_at, self.state.policy.deployed_at)
        if ends and node.has:
            self.end(node, node.has[0], *answer)
        self.poll(name, healthy=True)
        self.reply(name, replies, acknowledged)

    @rule()
    def a_quiet_second(self) -> None:
        """All nodes report, nothing ends, and what runs long enough may get a second attempt."""
        for start in self.hand_overs[:]:
            self.deliver(start, arrives=True, answered=True)
        for name, node in self.nodes.items():
            node.deployed_at = max(node.deployed_at, self.state.policy.deployed_at)
            self.poll(name, healthy=True)
            self.reply(name, arrives=True, acknowledged=True)
        self.now += 1.0
        self.handle(Tick())

    @precondition(lambda self: self.hand_overs)
    @rule(data=st.data(), arrives=st.booleans(), answered=st.booleans())
    def hand_over(self, data: st.DataObject, arrives: bool, answered: bool) -> None:
        self.deliver(data.draw(st.sampled_from(self.hand_overs)), arrives, answered)

    def deliver(self, start: StartAttempts, arrives: bool, answered: bool) -> None:
        self.hand_overs.remove(start)
        ids = tuple(order.attempt for order in start.orders)
        if arrives:
            self.nodes[start.node_id].has.extend(ids)
        self.handle(HandOverEnded(start.node_id, ids, arrived=arrives and answered))

    @precondition(lambda self: self.stops)
    @rule(arrives=st.booleans())
    def stop(self, arrives: bool) -> None:
        command = self.stops.pop(0)
        node = self.nodes[command.node_id]
        waiting = [attempt for attempt in command.recalled if attempt in node.has[node.slots :]]
        for attempt in (*command.attempts, *waiting):
            if arrives and attempt in node.has:
                self.end(node, attempt, Outcome.CANCELLED, None)

    def end(self, node: Node, attempt: AttemptId, outcome: Outcome, code: int | None) -> None:
        node.has.remove(attempt)
        began = datetime.fromtimestamp(self.now, UTC)
        report = AttemptReport(attempt, outcome, code, started_at=began, ended_at=began + timedelta(seconds=0.1))
        node.reports.append(report)

    @precondition(lambda self: any(node.has for node in self.nodes.values()))
    @rule(data=st.data(), answer=st.sampled_from(OUTCOMES))
    def finish(self, data: st.DataObject, answer: tuple[Outcome, int | None]) -> None:
        node = data.draw(st.sampled_from([node for node in self.nodes.values() if node.has]))
        self.end(node, data.draw(st.sampled_from(node.has)), *answer)

    @rule(name=st.sampled_from(NODES), noticed=st.booleans(), leaves=st.booleans())
    def die(self, name: str, noticed: bool, leaves: bool) -> None:
        """The next life of a node's agent reports what the earlier one left, if nothing cleaned up."""
        old = self.nodes[name]
        left = old.has[: old.slots] if leaves else []
        reports = [AttemptReport(attempt, Outcome.LOST, message="left over") for attempt in left]
        self.nodes[name] = Node(old.slots, old.life + 1, reports=reports)
        if noticed:
            self.handle(NodeLost(name))

    @rule(name=st.sampled_from(NODES))
    def thought_dead(self, name: str) -> None:
        self.handle(NodeLost(name))

    @rule(name=st.sampled_from(NODES), draining=st.booleans(), left=st.sampled_from([None, 0.0, 3.0]))
    def drain(self, name: str, draining: bool, left: float | None) -> None:
        self.handle(NodeDraining(name, draining, None if left is None else self.now + left))

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.handle(Tick())

    @rule(quota=st.sampled_from([None, 1, 3]), pricers=st.sampled_from(["p", "pq", "pqr"]))
    def deploy(self, quota: int | None, pricers: str) -> None:
        stamp = self.policy.deployed_at + 1
        self.policy = replace(self.policy, quota=quota, pricers=frozenset(pricers), deployed_at=stamp)
        self.handle(PolicyChanged(self.policy))

    @rule(decided=st.booleans(), scanned=st.booleans())
    def new_leader(self, decided: bool, scanned: bool) -> None:
        self.state = GroupState("rack-a", self.policy if decided else self.first_policy)
        self.ended_by_this_leader.clear()
        self.started.clear()
        self.hand_overs.clear()  # died with the old leader; those that arrived are on the nodes
        self.stops.clear()
        self.learn()
        self.handle(JobsArrived(self.unfinished(running=True)))
        if scanned:
            self.scan()

    @rule(name=st.sampled_from(NODES), answer=st.sampled_from(OUTCOMES))
    def found_by_the_next_leader(self, name: str, answer: tuple[Outcome, int | None]) -> None:
        """A node was given up, the leader changes, and the node reports before the store was scanned."""
        self.thought_dead(name)
        self.new_leader(decided=True, scanned=False)
        self.a_turn_of_a_node(name, True, True, True, answer, True, True)

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def load_is_what_a_fresh_look_at_all_nodes_gives(self) -> None:
        fresh = GroupLoad(self.state.group_id, self.state.nodes)
        for name in self.state.nodes:
            fresh.touch(name)
        policy = self.state.policy
        assert self.state.capacity(self.now) == fresh.capacity(None, policy.quota, self.state.queued, self.now)

    @invariant()
    def every_job_is_in_exactly_one_place(self) -> None:
        if not hasattr(self, "state"):
            return
        state = self.state
        doubled: list[Entry] = []
        places: dict[str, list[str]] = {job_id: [] for job_id in state._jobs}
        for job_id in state._backlog:
            places[job_id].append("backlog")
        for node in state.nodes.values():
            for attempt in node.held:
                entry = state._jobs[attempt.job_id]
                assert (node.node_id, attempt) in entry.places()
                if attempt == entry.current:
                    places[attempt.job_id].append(node.node_id)
                else:
                    doubled.append(entry)
                    assert node.node_id != entry.node_id, "both attempts on one node"
            assert node.uncertain <= node.held.keys()
        for job_id, where in places.items():
            assert len(where) == 1, (job_id, where)
            assert (state._jobs[job_id].node_id is None) == (where[0] == "backlog")
        assert len(doubled) == sum(entry.second is not None for entry in state._jobs.values())
        assert len(doubled) <= most_at_once(sum(node.slots for node in self.nodes.values()))

    @invariant()
    def a_node_that_is_kept_for_a_job_takes_no_other(self) -> None:
        if not hasattr(self, "state"):
            return
        for node in self.state.nodes.values():
            if node.reserved_for is not None:
                assert node.room(self.now, 1) == 0
                for entry in self.state._jobs.values():
                    assert not (entry.alone and entry.node_id == node.node_id) or entry.spec.job_id == node.reserved_for

    @invariant()
    def nothing_waits_that_has_ended_or_is_cancelled(self) -> None:
        if hasattr(self, "state"):
            assert not self.state._jobs.keys() & self.state._ended.keys()
            assert not any(e.cancelled and e.node_id is None for e in self.state._jobs.values())

    @invariant()
    def the_window_bounds_what_is_loaded(self) -> None:
        if hasattr(self, "state") and self.policy.window == 100:
            assert self.state.queued <= 100

    def teardown(self) -> None:
        """In the end there are no faults, and every job ends within its attempts."""
        if not hasattr(self, "state"):
            return
        for name in NODES:
            self.handle(NodeDraining(name, False))
        for _ in range(60 + 4 * len(self.store)):
            for start in self.hand_overs[:]:
                self.deliver(start, arrives=True, answered=True)
            self.stops.clear()
            for name, node in self.nodes.items():
                node.deployed_at = self.policy.deployed_at
                for attempt in node.has[:]:
                    self.end(node, attempt, Outcome.EXITED, 0)
                self.poll(name, healthy=True)
                self.reply(name, arrives=True, acknowledged=True)
            self.scan()
            self.handle(CancelRequested(tuple(i for i, r in self.store.items() if r.cancel_requested)))
            self.now += 2.0
            self.handle(Tick())
            self.every_job_is_in_exactly_one_place()
            if all(row.state.is_terminal for row in self.store.values()):
                return
        waiting = {job_id: row for job_id, row in self.store.items() if not row.state.is_terminal}
        raise AssertionError(f"these jobs never ended: {waiting}")


TestGroupInAHostileWorld = GroupInAHostileWorld.TestCase
TestGroupInAHostileWorld.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
