"""A job that kills its nodes is found, and no job fails for having run beside it."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from raygrid.core.group.events import (
    Event,
    HandOverEnded,
    JobsArrived,
    NodeLost,
    NodeReported,
    NodesExpected,
    StartAttempts,
    StopAttempts,
    Tick,
    WriteUpdates,
)
from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.retry import JobRetryPolicy
from raygrid.core.group.state import GroupState
from raygrid.models import AttemptId, AttemptReport, JobState, JobUpdate, NodeState, Outcome, QueuedJob
from tests.unit.test_core_group import FAILED, Rack, job


class World:
    """Nodes that die when the poison begins on them and are back at once; a leader that may change."""

    def __init__(self, seed: int, nodes: int, slots: int, innocents: int, max_attempts: int) -> None:
        self.random = random.Random(seed)
        self.policy = GroupPolicy(prefetch=1, node_timeout_s=1e6, retry=JobRetryPolicy(max_attempts))
        self.slots = slots
        self.now = 1_000.0
        self.losses = 0
        self.last: dict[str, JobUpdate] = {}
        names = ["poison", *(f"innocent-{n}" for n in range(innocents))]
        self.random.shuffle(names)
        self.jobs = {name: job(name) for name in names}
        self.has: dict[str, list[AttemptId]] = {f"n{n}": [] for n in range(nodes)}
        self.lives = dict.fromkeys(self.has, 0)
        self.lead()

    def lead(self) -> None:
        """A leader begins, with the state of the store."""
        self.state = GroupState("rack-a", self.policy)
        self.handle(NodesExpected(tuple(self.has)))
        unfinished = [self.stored(name) for name in self.jobs if not self.ended(name)]
        self.handle(JobsArrived(tuple(each for each in unfinished if each.running)))
        self.handle(JobsArrived(tuple(each for each in unfinished if not each.running)))
        for name in self.has:
            self.poll(name)

    def ended(self, name: str) -> bool:
        return name in self.last and self.last[name].state.is_terminal

    def stored(self, name: str) -> QueuedJob:
        known = self.last.get(name)
        if known is None:
            return self.jobs[name]
        running = known.state is JobState.RUNNING
        return QueuedJob(self.jobs[name].spec, known.counts, known.node_id, running)

    def handle(self, event: Event) -> None:
        self.now += 0.01
        for command in self.state.handle(event, self.now):
            match command:
                case WriteUpdates(updates):
                    self.last.update({update.job_id: update for update in updates})
                case StopAttempts(node, attempts):
                    for attempt in attempts:
                        if attempt in self.has[node]:
                            self.has[node].remove(attempt)
                            self.poll(node, AttemptReport(attempt, Outcome.CANCELLED))
                case StartAttempts(node, orders):
                    ids = tuple(order.attempt for order in orders)
                    self.has[node].extend(ids)
                    self.handle(HandOverEnded(node, ids, arrived=True))

    def poll(self, name: str, *reports: AttemptReport) -> None:
        self.now += 0.01
        waiting = max(0, len(self.has[name]) - self.slots)
        node_state = NodeState(name, f"life-{self.lives[name]}", self.slots, tuple(self.has[name]), waiting)
        self.handle(NodeReported(node_state, reports, asked_at=self.now))

    def turn(self) -> None:
        """A node whose slots have the poison dies; on any other something ends."""
        name = self.random.choice(list(self.has))
        running = self.has[name][: self.slots]
        if any(attempt.job_id == "poison" for attempt in running):
            self.poll(name)
            self.losses += 1
            self.has[name], self.lives[name] = [], self.lives[name] + 1
            if self.random.random() < 0.5:
                self.handle(NodeLost(name))
            self.poll(name)
        elif running and self.random.random() < 0.7:
            attempt = self.random.choice(running)
            self.has[name].remove(attempt)
            # So short that nodes get some ahead.
            began, ended = datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(0.01, UTC)
            self.poll(name, AttemptReport(attempt, Outcome.EXITED, 0, started_at=began, ended_at=ended))
        self.now += 0.3
        self.handle(Tick())


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(2, 5),
    st.integers(1, 6),
    st.integers(0, 40),
    st.integers(2, 5),
)
def test_only_the_poison_fails_and_after_few_losses(
    seed: int, nodes: int, slots: int, innocents: int, limit: int
) -> None:
    """However jobs are mixed, the culprit costs as many nodes as its attempts allow, and all other jobs are done."""
    world = World(seed, nodes, slots, innocents, limit)
    for _ in range(4_000):
        world.turn()
        if all(map(world.ended, world.jobs)):
            break
    ends = {name: (update.state, update.reason) for name, update in world.last.items()}
    assert ends.pop("poison") == (FAILED, "poison")
    assert ends == {name: (JobState.DONE, None) for name in world.jobs if name != "poison"}
    assert world.losses == limit


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 4), st.integers(1, 4), st.integers(0, 20))
def test_changes_of_leader_do_not_hide_the_poison(seed: int, nodes: int, slots: int, innocents: int) -> None:
    """With leaders that change now and then the culprit is found nevertheless, a little later at most."""
    world = World(seed, nodes, slots, innocents, 3)
    for _ in range(4_000):
        world.turn()
        if world.random.random() < 0.1:
            world.lead()
        if all(map(world.ended, world.jobs)):
            break
    ends = {name: (update.state, update.reason) for name, update in world.last.items()}
    assert ends.pop("poison") == (FAILED, "poison")
    assert ends == {name: (JobState.DONE, None) for name in world.jobs if name != "poison"}
    assert world.losses == 3


def test_the_next_leader_knows_how_many_nodes_a_job_has_lost() -> None:
    """A job that lost two nodes under an earlier leader fails as poison with the third; the message counts three."""
    rack = Rack()
    rack.join("n1")
    rack.submit(job("a", attempts=2, failures=2, losses=2))
    update = rack.handle(NodeLost("n1")).wrote["a"]
    assert (update.state, update.reason) == (FAILED, "poison")
    assert (update.message or "").startswith("its node was lost in each of 3 attempts; the job itself is the likely")


def test_after_a_crash_of_a_machine_its_jobs_run_side_by_side() -> None:
    """Jobs that lost their node once do not wait for one another."""
    rack = Rack()
    rack.join("n1", slots=8)
    rack.submit(*(f"j{n}" for n in range(8)))
    rack.join("n2", slots=8)
    decided = rack.handle(NodeLost("n1"))
    assert len(decided.started) == 8


def test_a_job_in_its_last_attempt_runs_without_other_suspects() -> None:
    """Beside it run only jobs that have lost no node; suspects wait for another node, and the line goes on."""
    rack = Rack()
    rack.join("n1", slots=3)
    last = job("last", attempts=2, failures=2, losses=2)
    once = job("once", attempts=1, failures=1, losses=1)
    decided = rack.submit(last, once, job("fresh"))
    assert sorted(decided.started) == ["fresh", "last"]
    assert rack.wait(2, alive=("n1",)).started == {}
    rack.join("n2")
    assert rack.wait(1, alive=("n1", "n2")).started == {"once": "n2"}
    update = rack.handle(NodeLost("n1")).wrote
    assert (update["last"].reason, update["fresh"].state) == ("poison", JobState.QUEUED)


def test_a_loss_beside_another_suspect_is_not_the_last() -> None:
    """If two suspects were lost together, none fails by it; each is tried apart."""
    rack = Rack()
    for name in ("a", "b"):
        rack.submit(job(name, attempts=3, failures=2, losses=2, running=True, node_id="n1"))
    rack.slots["n1"], rack.lives["n1"] = 2, 1
    rack.has["n1"] = [AttemptId("a", 3), AttemptId("b", 3)]
    rack.poll("n1")
    decided = rack.handle(NodeLost("n1"))
    assert {name: update.counts.failures for name, update in decided.wrote.items()} == {"a": 2, "b": 2}
    assert set(decided.states.values()) == {JobState.QUEUED}


def test_a_single_attempt_is_not_called_poison() -> None:
    """If a job may have only one attempt, one lost node proves nothing against it."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=1))
    rack.join("n1", slots=2)
    rack.submit("a", "b")
    decided = rack.handle(NodeLost("n1"))
    assert {update.reason for update in decided.wrote.values()} == {"lost"}
