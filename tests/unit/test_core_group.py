"""A group's decisions, as sequences of events.

`Rack` plays the leader and its nodes: it carries commands out at once, unless a hand-over is to fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.core.group.events import (
    CancelRequested,
    Event,
    HandOverEnded,
    JobsArrived,
    NodeDraining,
    NodeLost,
    NodeReported,
    StartAttempts,
    StopAttempts,
    Tick,
    WriteUpdates,
)
from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.retry import JobRetryPolicy
from raygrid.core.group.state import GroupState
from raygrid.models import (
    AttemptId,
    AttemptReport,
    BlobSlice,
    JobSpec,
    JobState,
    JobUpdate,
    NodeState,
    NodeTraffic,
    Outcome,
    QueuedJob,
)

QUEUED, RUNNING, DONE, FAILED, CANCELLED = JobState


def job(
    job_id: str,
    priority: int = 0,
    *,
    pricer: str = "p",
    attempts: int = 0,
    failures: int = 0,
    losses: int = 0,
    recalled: int = 0,
    **known: Any,
) -> QueuedJob:
    spec = JobSpec(job_id, pricer, "1", BlobSlice("", 0, 0, ""), priority=priority)
    return QueuedJob(spec, AttemptCounts(attempts, failures, losses, recalled), **known)


@dataclass
class Decisions:
    """The decisions of the group on one event, or on several."""

    started: dict[str, str] = field(default_factory=dict)  # job to node, in order
    stopped: list[tuple[str, AttemptId]] = field(default_factory=list)
    recalled: list[tuple[str, AttemptId]] = field(default_factory=list)
    wrote: dict[str, JobUpdate] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, JobState]:
        return {job_id: update.state for job_id, update in self.wrote.items()}


class Rack:
    """A group and its nodes, as far as the tests need them."""

    def __init__(self, **policy: Any) -> None:
        self.state = GroupState("rack-a", GroupPolicy(**{"prefetch": 0, **policy}), site="LDN")
        self.now = 1_000.0
        self.hand_overs_answered = True
        self.has: dict[str, list[AttemptId]] = {}  # what each node really has
        self.slots: dict[str, int] = {}
        self.lives: dict[str, int] = {}
        self.where: dict[str, tuple[str, AttemptId]] = {}  # latest attempt of each job

    def handle(self, event: Event) -> Decisions:
        self.now += 0.01
        decided = Decisions()
        for command in self.state.handle(event, self.now):
            match command:
                case WriteUpdates(updates):
                    assert not any(update.job_id in decided.wrote for update in updates)
                    decided.wrote.update({update.job_id: update for update in updates})
                case StopAttempts(node, attempts, recalled):
                    decided.recalled += [(node, attempt) for attempt in recalled]
                    decided.stopped += [(node, attempt) for attempt in attempts]
                case StartAttempts(node, orders):
                    for order in orders:
                        decided.started[order.attempt.job_id] = node
                        self.where[order.attempt.job_id] = (node, order.attempt)
                    if self.hand_overs_answered:
                        ids = tuple(order.attempt for order in orders)
                        self.has.setdefault(node, []).extend(ids)
                        assert self.state.handle(HandOverEnded(node, ids, arrived=True), self.now) == []
        return decided

    def submit(self, *jobs: str | QueuedJob) -> Decisions:
        return self.handle(JobsArrived(tuple(job(j) if isinstance(j, str) else j for j in jobs)))

    def cancel(self, *job_ids: str) -> Decisions:
        return self.handle(CancelRequested(job_ids))

    def join(self, name: str, slots: int = 1) -> Decisions:
        """A node appears, or its agent starts anew with nothing."""
        self.slots[name], self.has[name] = slots, []
        self.lives[name] = self.lives.get(name, 0) + 1
        return self.poll(name)

    def poll(self, name: str, *reports: AttemptReport, **state: Any) -> Decisions:
        """The node answers a poll that was sent after all earlier events."""
        self.now += 0.01
        life, has = f"life-{self.lives[name]}", tuple(self.has[name])
        node_state = NodeState(
            **{"node_id": name, "incarnation": life, "slots": self.slots[name], "running": has, **state}
        )
        return self.handle(NodeReported(node_state, reports, asked_at=self.now))

    def ends(self, job_id: str, outcome: Outcome = Outcome.EXITED, code: int | None = 0, **report: Any) -> Decisions:
        """The latest attempt of a job ends on its node."""
        node, attempt = self.where[job_id]
        self.has[node].remove(attempt)
        exit_code = code if outcome is Outcome.EXITED else None
        return self.poll(node, AttemptReport(attempt, outcome, exit_code, **report))

    def wait(self, seconds: float, *, alive: Iterable[str] = ()) -> Decisions:
        """Time passes in steps of a second; the nodes that are alive answer polls meanwhile."""
        together = Decisions()
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 1.0)
            for decided in [self.poll(name) for name in alive] + [self.handle(Tick())]:
                together.started |= decided.started
                together.stopped += decided.stopped
                together.wrote |= decided.wrote
        return together

    def node_of(self, job_id: str) -> str:
        return self.where[job_id][0]

    def view(self) -> dict[str, tuple[int, str]]:
        return {node.node_id: (node.running, node.state) for node in self.state.capacity(self.now).nodes}


# --- the usual course ---------------------------------------------------------------------------------------


def test_a_job_waits_runs_and_is_done() -> None:
    """Without a node a job waits; with one it starts, is written as running, and its answer ends it."""
    rack = Rack()
    assert rack.submit("a") == Decisions()
    assert rack.state.queued == 1
    decided = rack.join("n1")
    assert decided.started == {"a": "n1"}
    update = decided.wrote["a"]
    assert (update.state, update.counts.started, update.node_id) == (RUNNING, 1, "n1")
    decided = rack.ends("a")
    assert decided.states == {"a": DONE}
    assert (decided.wrote["a"].counts.started, decided.wrote["a"].node_id, decided.wrote["a"].reason) == (1, "n1", None)
    assert "a" not in rack.state


def test_a_jobs_own_failure_is_final() -> None:
    """A pricer that exits non-zero has answered: failed, with its report, and nothing runs again."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    decided = rack.ends("a", code=3, message="exit code 3", stderr_tail="oops")
    update = decided.wrote["a"]
    assert (update.state, update.reason, update.message) == (FAILED, "exit_code", "exit code 3")
    assert update.report is not None
    assert (update.report.exit_code, update.report.stderr_tail) == (3, "oops")
    assert decided.started == {}


def test_priorities_first_then_arrival() -> None:
    """One slot runs the urgent jobs first and equals in the order in which they came."""
    rack = Rack()
    rack.submit("a", job("b", 5), "c", job("d", 5), job("e", -1))
    order = list(rack.join("n1").started)
    while len(order) < 5:
        order += rack.ends(order[-1]).started
    assert order == ["b", "d", "a", "c", "e"]


def test_the_same_job_twice_is_one_job() -> None:
    """A job that arrives by message and by a scan starts once, and not again after its end."""
    rack = Rack()
    rack.join("n1", slots=4)
    assert rack.submit("a", "a").started == {"a": "n1"}
    assert rack.submit("a") == Decisions()
    rack.ends("a")
    assert rack.submit("a") == Decisions()


def test_jobs_spread_over_free_slots() -> None:
    """The node with most free slots gets the next job."""
    rack = Rack()
    rack.join("n1", slots=1)
    rack.join("n2", slots=3)
    assert list(rack.submit("a", "b", "c", "d").started.values()).count("n2") == 3


def test_weights_are_followed_where_configured() -> None:
    """Weighted round robin hands a node of weight three three times as much."""
    rack = Rack(placement="weighted_round_robin", weights={"n1": 3.0})
    rack.join("n1", slots=40)
    rack.join("n2", slots=40)
    started = list(rack.submit(*(f"j{i}" for i in range(40))).started.values())
    assert (started.count("n1"), started.count("n2")) == (30, 10)


# --- limits -------------------------------------------------------------------------------------------------


def test_slots_are_never_exceeded() -> None:
    """Without prefetch a node never holds more attempts than slots, and a freed slot is used at once."""
    rack = Rack()
    rack.join("n1", slots=2)
    assert list(rack.submit("a", "b", "c", "d").started) == ["a", "b"]
    assert rack.view() == {"n1": (2, "ok")}
    assert list(rack.ends("a").started) == ["c"]
    assert rack.view() == {"n1": (2, "ok")}


def test_the_quota_is_never_exceeded() -> None:
    """A group with a quota runs no more than that, however many slots its nodes have."""
    rack = Rack(quota=3, prefetch=4)
    rack.join("n1", slots=8)
    rack.join("n2", slots=8)
    assert len(rack.submit(*(f"j{i}" for i in range(10))).started) == 3
    capacity = rack.state.capacity(rack.now)
    assert (capacity.slots, capacity.running, capacity.queued, capacity.free) == (3, 3, 7, 0)
    assert len(rack.ends("j0").started) == 1
    assert rack.state.capacity(rack.now).running == 3


def test_nothing_is_handed_over_ahead_under_a_quota() -> None:
    """What waits on a node could start unseen, so with a quota a node gets no more than its slots."""
    rack = Rack(quota=6, prefetch=4)
    rack.join("n1", slots=2)
    rack.state.nodes["n1"].record_duration(0.001)
    assert len(rack.submit(*(f"j{i}" for i in range(10))).started) == 2


def test_an_attempt_that_waits_on_a_node_is_not_running_yet() -> None:
    """An attempt handed over beyond the slots is recorded as running when it has a slot, and only once."""
    rack = Rack(prefetch=1)
    rack.join("n1", slots=1)
    rack.state.nodes["n1"].record_duration(0.1)
    decided = rack.submit("a", "b")
    assert decided.started == {"a": "n1", "b": "n1"}
    assert decided.states == {"a": RUNNING}
    assert rack.state.handed_over == 1
    assert rack.poll("n1", waiting=1).states == {}
    assert rack.poll("n1", waiting=0).states == {"b": RUNNING}
    assert rack.poll("n1", waiting=0).states == {}


def test_an_attempt_that_waits_too_long_on_a_node_is_taken_back() -> None:
    """When long jobs hold the slots, what was handed over ahead goes back in line and elsewhere, uncharged."""
    rack = Rack(prefetch=1)
    rack.join("n1", slots=1)
    rack.state.nodes["n1"].record_duration(0.1)
    rack.submit("long", "behind")
    rack.now += 1.5
    assert rack.poll("n1", waiting=1).recalled == [("n1", AttemptId("behind", 1))]
    rack.join("n2")
    decided = rack.ends("behind", Outcome.CANCELLED)
    assert decided.started == {"behind": "n2"}
    assert decided.wrote["behind"].counts.failures == 0


def test_a_long_job_after_short_ones_is_taken_back_once_and_never_failed_for_it() -> None:
    """On a node of many slots, a job behind long ones is handed over ahead at most once, however long they take."""
    rack = Rack(prefetch=1)
    rack.join("n1", slots=8)
    rack.state.nodes["n1"].record_duration(0.1)
    rack.submit(*(f"long{i}" for i in range(8)), "behind")
    rack.now += 1.5
    assert rack.poll("n1", waiting=1).recalled == [("n1", AttemptId("behind", 1))]
    assert rack.ends("behind", Outcome.CANCELLED).started == {}
    for _ in range(20):
        rack.now += 1.5
        assert rack.poll("n1") == Decisions()
    assert "behind" in rack.state


def test_short_jobs_are_handed_over_ahead() -> None:
    """Once attempts are known to be short, a node gets some beyond its slots, within the limit."""
    rack = Rack(prefetch=1)
    rack.join("n1", slots=2)
    rack.submit(*(f"j{i}" for i in range(100)))
    record = rack.state.nodes["n1"]
    assert record.used == 2
    record.record_duration(0.05)
    rack.poll("n1")
    assert record.used == 2 + 8


def test_the_window_bounds_what_waits_in_memory() -> None:
    """A full window leaves further jobs to the store, and asks for more when half of it is gone."""
    rack = Rack(window=4)
    rack.submit("a", "b", "c", "d", "e")
    assert rack.state.queued == 4
    assert "e" not in rack.state
    assert not rack.state.wants_more
    rack.join("n1", slots=3)
    assert (rack.state.queued, rack.state.wants_more) == (1, True)
    rack.submit("f")
    assert "f" not in rack.state, "a younger job must not pass one that waits in the store"
    rack.handle(JobsArrived((job("e"), job("f")), scanned=True))
    assert "e" in rack.state
    assert "f" in rack.state


def test_a_full_window_takes_what_is_more_urgent_than_its_last() -> None:
    """An urgent job does not wait in the store behind those in memory; an equal one does."""
    rack = Rack(window=2)
    rack.submit("a", "b", job("urgent", 1), "c")
    assert ("urgent" in rack.state, "c" in rack.state) == (True, False)
    assert list(rack.join("n1").started) == ["urgent"]


# --- the grid fails, the job runs again ---------------------------------------------------------------------


def test_a_failed_attempt_runs_again_on_another_node() -> None:
    """A grid failure costs the job an attempt, and the next one goes to a node that it has not failed on."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.join("n2", slots=1)
    decided = rack.ends("a", Outcome.INFRASTRUCTURE, message="disk full")
    assert decided.started == {"a": "n2"}
    assert (decided.wrote["a"].state, decided.wrote["a"].counts.started) == (RUNNING, 2)


def test_a_retry_waits_for_a_busy_node_that_it_has_not_failed_on() -> None:
    """Instead of the node that failed it a job waits for another; younger jobs use the slot."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.join("n2")
    rack.submit("busy", "next")
    assert rack.node_of("busy") == "n2"
    decided = rack.ends("a", Outcome.INFRASTRUCTURE)
    assert (decided.started, decided.states["a"]) == ({"next": "n1"}, QUEUED)
    assert rack.ends("busy").started == {"a": "n2"}


def test_jobs_that_are_skipped_keep_their_order() -> None:
    """Jobs that wait for another node than the free one keep their places, event after event."""
    rack = Rack()
    rack.join("n1", slots=3)
    rack.submit("a", "b", "c")
    rack.join("n2")
    rack.submit("busy")
    for name in ("a", "b", "c"):
        rack.ends(name, Outcome.INFRASTRUCTURE)
    order: list[str] = []
    for name in ("busy", "c", "b"):
        rack.handle(Tick())
        order += rack.ends(name).started
    assert order == ["c", "b", "a"]


def test_a_lone_node_gets_the_job_again_after_a_pause() -> None:
    """A job that has failed on every node waits a moment, then tries again there."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    decided = rack.ends("a", Outcome.INFRASTRUCTURE)
    assert (decided.started, decided.states) == ({}, {"a": QUEUED})
    assert rack.state.queued == 1
    assert rack.handle(Tick()).started == {}
    assert rack.wait(0.2, alive=["n1"]).started == {"a": "n1"}


def test_after_max_attempts_the_job_fails_with_the_last_failure() -> None:
    """Three grid failures end a job; the reason is the last one's."""
    rack = Rack()
    for name in ("n1", "n2", "n3", "n4"):
        rack.join(name)
    rack.submit("a")
    rack.ends("a", Outcome.INFRASTRUCTURE, message="disk full")
    rack.ends("a", Outcome.CANNOT_START, message="no such file")
    decided = rack.ends("a", Outcome.INFRASTRUCTURE, message="blob store away")
    update = decided.wrote["a"]
    assert (update.state, update.counts.started, update.reason) == (FAILED, 3, "infrastructure")
    assert update.message == "gave up after 3 attempts; the last one: blob store away"


def test_a_job_that_kills_its_nodes_ends_as_poison() -> None:
    """A job whose node is lost in every attempt fails, instead of taking the whole rack down."""
    rack = Rack()
    for name in ("n1", "n2", "n3", "n4"):
        rack.join(name)
    rack.submit("a")
    assert rack.handle(NodeLost(rack.node_of("a"))).states == {"a": RUNNING}
    assert rack.handle(NodeLost(rack.node_of("a"))).states == {"a": RUNNING}
    decided = rack.handle(NodeLost(rack.node_of("a")))
    assert (decided.wrote["a"].state, decided.wrote["a"].reason) == (FAILED, "poison")
    assert len(rack.view()) == 1


def test_a_configured_exit_code_runs_again_up_to_the_limit() -> None:
    """A retried exit code counts like any attempt; the last one's answer is the job's."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=3, retry_exit_codes={"p": frozenset({75})}))
    rack.join("n1")
    rack.submit("a")
    assert rack.ends("a", code=75).started == {"a": "n1"}
    assert rack.ends("a", code=75).started == {"a": "n1"}
    decided = rack.ends("a", code=75)
    assert (decided.wrote["a"].state, decided.wrote["a"].reason, decided.wrote["a"].counts.started) == (
        FAILED,
        "exit_code",
        3,
    )


def test_an_attempt_that_the_grid_killed_for_its_own_reasons_costs_nothing() -> None:
    """A kill that no client asked for puts the job back without charging it."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    for _ in range(5):
        assert rack.ends("a", Outcome.CANCELLED).started == {"a": "n1"}
    assert rack.ends("a").states == {"a": DONE}


def test_no_job_is_retried_for_ever() -> None:
    """Even attempts that are not charged end at the hard limit."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=1))
    rack.join("n1")
    rack.submit("a")
    for _ in range(3):
        assert rack.ends("a", Outcome.CANCELLED).states == {"a": RUNNING}
    decided = rack.ends("a", Outcome.CANCELLED)
    assert (decided.wrote["a"].state, decided.wrote["a"].reason) == (FAILED, "infrastructure")


# --- cancelling ---------------------------------------------------------------------------------------------


def test_cancelling_a_waiting_job_ends_it_at_once() -> None:
    """A job in line, or one that waits to be tried again, is cancelled without a node."""
    rack = Rack()
    rack.submit("a")
    assert rack.cancel("a").states == {"a": CANCELLED}
    rack.join("n1")
    rack.submit("b")
    rack.ends("b", Outcome.INFRASTRUCTURE)
    assert rack.cancel("b").states == {"b": CANCELLED}
    assert rack.state.queued == 0
    assert rack.wait(3, alive=["n1"]) == Decisions()


def test_cancelling_a_running_job_stops_its_attempt() -> None:
    """The stop is sent to the node, and the node's report ends the job."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    decided = rack.cancel("a")
    assert (decided.stopped, decided.wrote) == ([("n1", AttemptId("a", 1))], {})
    decided = rack.ends("a", Outcome.CANCELLED)
    assert (decided.wrote["a"].state, decided.wrote["a"].reason) == (CANCELLED, "cancelled")


def test_a_job_that_finished_before_it_was_stopped_is_done() -> None:
    """The pricer's answer wins over a cancel that came too late."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.cancel("a")
    assert rack.ends("a").states == {"a": DONE}


def test_a_lost_stop_is_sent_again() -> None:
    """A stop is sent again to a node that still has a cancelled attempt after a second, not before."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.cancel("a")
    assert rack.poll("n1").stopped == []
    rack.now += 1.5
    assert rack.poll("n1").stopped == [("n1", AttemptId("a", 1))]
    assert rack.poll("n1").stopped == []


@pytest.mark.parametrize("outcome", [Outcome.INFRASTRUCTURE, Outcome.CANNOT_START, Outcome.LOST])
def test_a_cancelled_job_is_not_run_again(outcome: Outcome) -> None:
    """A grid failure of a cancelled attempt ends the job as cancelled."""
    rack = Rack()
    rack.join("n1")
    rack.join("n2")
    rack.submit("a")
    rack.cancel("a")
    decided = rack.ends("a", outcome)
    assert (decided.states, decided.started) == ({"a": CANCELLED}, {})


def test_a_cancelled_job_ends_with_its_node() -> None:
    """When the node of a cancelled attempt is lost, the job is cancelled."""
    rack = Rack()
    rack.join("n1")
    rack.join("n2")
    rack.submit("a")
    rack.cancel("a")
    decided = rack.handle(NodeLost(rack.node_of("a")))
    assert (decided.states, decided.started) == ({"a": CANCELLED}, {})


def test_cancelling_a_job_that_is_in_the_store_only() -> None:
    """A job that is not in memory is written as cancelled, once, and does not start when it arrives."""
    rack = Rack()
    rack.join("n1")
    decided = rack.cancel("a")
    assert (decided.wrote["a"].state, decided.wrote["a"].counts.started) == (CANCELLED, 0)
    assert rack.cancel("a") == Decisions()
    assert rack.submit("a") == Decisions()


def test_cancelling_an_ended_job_changes_nothing() -> None:
    """An ended job is left alone."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.ends("a")
    assert rack.cancel("a") == Decisions()


def test_a_job_that_arrives_cancelled_never_starts() -> None:
    """A job found in the store with a cancel request is cancelled instead of placed."""
    rack = Rack()
    rack.join("n1")
    decided = rack.submit(job("a", cancel_requested=True))
    assert (decided.states, decided.started) == ({"a": CANCELLED}, {})


# --- nodes come and go --------------------------------------------------------------------------------------


def test_a_lost_nodes_jobs_run_elsewhere() -> None:
    """When a node is gone its jobs start on others as their next attempt."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("a", "b")
    rack.join("n2", slots=2)
    decided = rack.handle(NodeLost("n1"))
    assert decided.started == {"a": "n2", "b": "n2"}
    assert {update.counts.started for update in decided.wrote.values()} == {2}
    assert list(rack.view()) == ["n2"]


def test_a_silent_node_is_lost_after_its_timeout() -> None:
    """A node that does not answer for longer than the timeout counts as gone, not before."""
    rack = Rack(node_timeout_s=5.0)
    rack.join("n1")
    rack.submit("a")
    rack.join("n2")
    assert rack.wait(4, alive=["n2"]).started == {}
    assert rack.wait(2, alive=["n2"]).started == {"a": "n2"}


def test_a_node_that_never_answers_a_new_leader_is_lost_sooner() -> None:
    """It probably ended with the leader before; a node that answers in time keeps what it runs."""
    for heard in (False, True):
        rack = Rack(node_timeout_s=5.0)
        rack.submit(job("a", attempts=1, node_id="n1", running=True))
        rack.join("n2")
        if heard:
            rack.slots["n1"], rack.has["n1"], rack.lives["n1"] = 1, [AttemptId("a", 1)], 1
            rack.poll("n1")
        decided = rack.wait(3, alive=["n2"])
        assert decided.started == ({} if heard else {"a": "n2"})


def test_losing_an_unknown_node_changes_nothing() -> None:
    """Word of an unknown node is no event."""
    assert Rack().handle(NodeLost("nobody")) == Decisions()


def test_an_agent_that_started_anew_has_lost_what_it_had() -> None:
    """A new incarnation of a node means that its attempts are gone, whether or not its loss was noticed."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.join("n2")
    assert rack.join("n1").started == {"a": "n2"}


def test_an_agent_that_started_anew_during_a_hand_over_has_lost_it() -> None:
    """Attempts on their way to the earlier life are lost with it, answered or not."""
    rack = Rack()
    rack.hand_overs_answered = False
    rack.join("n1")
    rack.submit("a")
    rack.join("n2")
    assert rack.join("n1").started == {"a": "n2"}
    assert rack.handle(HandOverEnded("n1", (AttemptId("a", 1),), arrived=True)) == Decisions()
    assert rack.view() == {"n2": (1, "ok"), "n1": (0, "ok")}


def test_an_attempt_that_its_node_no_longer_knows_is_lost() -> None:
    """A node that confirmed an attempt and then neither has nor reports it has lost it."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.join("n2")
    rack.has["n1"] = []
    assert rack.poll("n1").started == {"a": "n2"}


def test_a_reply_to_an_old_poll_proves_nothing() -> None:
    """A reply to a poll from before a confirmed hand-over cannot list it, so it does not count as a loss."""
    rack = Rack()
    rack.join("n1")
    asked_at = rack.now
    rack.submit("a")
    old = NodeState("n1", "life-1", 1, running=())
    assert rack.handle(NodeReported(old, (), asked_at)) == Decisions()
    assert rack.ends("a").states == {"a": DONE}


def test_only_what_had_a_slot_on_a_lost_node_is_suspect() -> None:
    """Attempts that were still waiting on a lost node cannot have killed it, and are not charged."""
    rack = Rack(prefetch=1, retry=JobRetryPolicy(max_attempts=1))
    rack.join("n1", slots=1)
    rack.state.nodes["n1"].record_duration(0.01)
    rack.submit(*(f"j{i}" for i in range(6)))
    assert rack.view() == {"n1": (6, "ok")}
    decided = rack.handle(NodeLost("n1"))
    assert [decided.states[f"j{i}"] for i in range(6)] == [FAILED] + [QUEUED] * 5


def test_a_draining_node_finishes_and_gets_nothing_more() -> None:
    """Draining keeps what runs and gives no new work, until it is taken back."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("a")
    rack.handle(NodeDraining("n1", True))
    assert rack.submit("b").started == {}
    assert rack.view() == {"n1": (1, "draining")}
    assert rack.state.capacity(rack.now).slots == 0
    assert rack.ends("a").states == {"a": DONE}
    assert rack.handle(NodeDraining("n1", False)).started == {"b": "n1"}


def test_draining_outlives_an_agents_restart() -> None:
    """A drained node stays drained when its agent starts anew, or when it appears only afterwards."""
    rack = Rack()
    rack.join("n1")
    rack.handle(NodeDraining("n1", True))
    rack.handle(NodeDraining("n2", True))
    rack.handle(NodeLost("n1"))
    rack.join("n1")
    rack.join("n2")
    assert rack.submit("a").started == {}
    assert rack.view() == {"n1": (0, "drained"), "n2": (0, "drained")}


def test_an_unhealthy_node_gets_nothing_until_it_is_well() -> None:
    """A node that reports itself unhealthy gets no jobs; its reason is shown."""
    rack = Rack()
    rack.join("n1")
    rack.poll("n1", healthy=False, why="disk full")
    assert rack.submit("a").started == {}
    [view] = rack.state.capacity(rack.now).nodes
    assert (view.state, view.why) == ("unhealthy", "disk full")
    assert rack.poll("n1").started == {"a": "n1"}


def test_a_node_that_fails_everything_does_not_take_the_whole_queue() -> None:
    """After three grid failures in a row a node is on probation, then gets one attempt at a time."""
    rack = Rack(probation_after=3, probation_s=15.0)
    rack.join("hole", slots=3)
    rack.submit("a", "b", "c")
    rack.join("good", slots=1)
    for name in ("a", "b", "c"):
        rack.ends(name, Outcome.INFRASTRUCTURE)
    assert rack.view()["hole"] == (0, "probation")
    rack.submit("d", "e", "f")
    assert rack.wait(14, alive=["hole", "good"]).started == {}
    assert rack.wait(2, alive=["hole", "good"]).started == {"d": "hole"}
    assert rack.view()["hole"] == (1, "ok")
    assert rack.ends("d").started == {"e": "hole", "f": "hole"}


def test_a_pricer_that_cannot_start_on_a_node_goes_elsewhere() -> None:
    """Jobs of that pricer go to the other nodes, and do not fail one after the other on this one."""
    rack = Rack(probation_after=3)
    rack.join("bare", slots=3)
    rack.submit("a", "b", "c")
    rack.join("full", slots=9)
    for name in ("a", "b", "c"):
        assert rack.ends(name, Outcome.CANNOT_START).started == {name: "full"}
    rack.slots["full"] = 3
    rack.poll("full")
    assert rack.submit("d").started == {}
    assert rack.submit(job("other", pricer="q")).started == {"other": "bare"}
    assert rack.ends("a").started == {"d": "full"}


# --- hand-overs ---------------------------------------------------------------------------------------------


def handed_over(*, arrived: bool) -> Rack:
    """A rack where the hand-over of job a to n1 failed, and did or did not arrive."""
    rack = Rack()
    rack.hand_overs_answered = False
    rack.join("n1")
    rack.submit("a")
    rack.has["n1"] = [AttemptId("a", 1)] if arrived else []
    assert rack.handle(HandOverEnded("n1", (AttemptId("a", 1),), arrived=False)) == Decisions()
    return rack


def test_nothing_is_decided_while_a_hand_over_is_under_way() -> None:
    """A poll that does not list an attempt on its way does not start it twice."""
    rack = Rack()
    rack.hand_overs_answered = False
    rack.join("n1")
    rack.join("n2")
    rack.submit("a")
    assert rack.poll("n1") == Decisions()
    assert rack.poll("n2") == Decisions()


def test_a_failed_hand_over_that_arrived_goes_on() -> None:
    """The node's next reply shows the attempt: it stays where it is."""
    rack = handed_over(arrived=True)
    assert rack.poll("n1") == Decisions()
    assert rack.ends("a").states == {"a": DONE}


def test_a_failed_hand_over_that_did_not_arrive_is_done_again() -> None:
    """The node's next reply does not show the attempt: the job starts again, and it has cost nothing."""
    rack = handed_over(arrived=False)
    rack.hand_overs_answered = True
    decided = rack.poll("n1")
    assert decided.started == {"a": "n1"}
    assert decided.wrote["a"].counts.started == 2
    rack.ends("a", Outcome.INFRASTRUCTURE)
    rack.wait(1, alive=["n1"])
    assert rack.ends("a", Outcome.INFRASTRUCTURE).states == {"a": QUEUED}  # only the second that counts


def test_an_attempt_that_ended_before_its_hand_over_was_answered() -> None:
    """The report of a fast attempt overtakes the answer to its hand-over, and ends the job."""
    rack = handed_over(arrived=True)
    assert rack.ends("a").states == {"a": DONE}
    assert rack.handle(HandOverEnded("n1", (AttemptId("a", 1),), arrived=True)) == Decisions()
    assert rack.view() == {"n1": (0, "ok")}


def test_a_job_cancelled_during_a_hand_over_that_failed_does_not_start_again() -> None:
    """When the attempt turns out not to have arrived, the job is cancelled instead of handed over again."""
    rack = handed_over(arrived=False)
    rack.cancel("a")
    decided = rack.poll("n1")
    assert (decided.states, decided.started) == ({"a": CANCELLED}, {})


def test_a_hand_over_that_arrives_after_it_was_given_up_is_taken_or_stopped() -> None:
    """An attempt that arrives late is kept while its job waits, and stopped once its job runs elsewhere."""
    rack = handed_over(arrived=False)
    rack.poll("n1", healthy=False)
    rack.has["n1"] = [AttemptId("a", 1)]
    decided = rack.poll("n1")
    assert (decided.states, decided.started) == ({"a": RUNNING}, {})

    rack = handed_over(arrived=False)
    rack.hand_overs_answered = True
    rack.poll("n1", healthy=False)
    rack.join("n2")
    assert rack.node_of("a") == "n2"
    rack.has["n1"] = [AttemptId("a", 1)]
    assert rack.poll("n1").stopped == [("n1", AttemptId("a", 1))]
    assert rack.view()["n1"] == (1, "ok")  # its slot counts as taken until it is gone


# --- attempts thought lost ----------------------------------------------------------------------------------


def thought_lost() -> Rack:
    """A rack where n1 fell silent with attempt 1 of job a, and attempt 2 runs on n2."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.join("n2")
    rack.wait(6, alive=["n2"])
    assert rack.where["a"] == ("n2", AttemptId("a", 2))
    return rack


def test_the_first_answer_wins_and_the_newer_attempt_is_stopped() -> None:
    """A late report of an attempt thought lost ends the job, and the attempt that replaced it is stopped."""
    rack = thought_lost()
    rack.has["n1"] = []
    decided = rack.poll("n1", AttemptReport(AttemptId("a", 1), Outcome.EXITED, 0))
    assert (decided.wrote["a"].state, decided.wrote["a"].node_id, decided.wrote["a"].counts.started) == (DONE, "n1", 2)
    assert decided.stopped == [("n2", AttemptId("a", 2))]
    assert rack.ends("a", Outcome.CANCELLED).wrote == {}


def test_a_report_after_the_end_changes_nothing() -> None:
    """The second of two answers is ignored, however often it is repeated."""
    rack = thought_lost()
    rack.ends("a")
    rack.has["n1"] = []
    late = AttemptReport(AttemptId("a", 1), Outcome.EXITED, 1)
    assert rack.poll("n1", late, late) == Decisions()
    assert rack.poll("n1", late) == Decisions()


def test_an_old_attempt_that_is_still_running_is_stopped() -> None:
    """A node that comes back with a replaced attempt gets a stop for it, and the newer one goes on."""
    rack = thought_lost()
    decided = rack.poll("n1")
    assert (decided.stopped, decided.wrote) == ([("n1", AttemptId("a", 1))], {})
    assert rack.ends("a").wrote["a"].node_id == "n2"


def test_a_late_grid_failure_of_an_old_attempt_changes_nothing() -> None:
    """What failed for the grid's reasons and was replaced already costs nothing more."""
    rack = thought_lost()
    rack.has["n1"] = []
    for outcome in (Outcome.INFRASTRUCTURE, Outcome.LOST, Outcome.CANCELLED):
        assert rack.poll("n1", AttemptReport(AttemptId("a", 1), outcome)).wrote == {}
    assert rack.ends("a").states == {"a": DONE}


def test_a_node_that_comes_back_keeps_what_was_not_started_elsewhere() -> None:
    """After a silence, attempts of jobs that still wait are adopted where they are."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    assert rack.wait(6).states == {"a": QUEUED}
    decided = rack.poll("n1")
    assert (decided.states, decided.started) == ({"a": RUNNING}, {})
    assert decided.wrote["a"].counts.started == 1
    assert rack.state.queued == 0
    assert rack.ends("a").states == {"a": DONE}


def test_a_job_that_waits_for_its_retry_is_adopted_where_it_runs() -> None:
    """An attempt that shows up again ends its job's pause, and nothing is left to start it a second time."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("a")
    assert rack.handle(NodeLost("n1")).states == {"a": QUEUED}
    assert rack.state.queued == 1
    assert rack.poll("n1").states == {"a": RUNNING}
    assert rack.state.queued == 0
    assert rack.wait(2, alive=["n1"]) == Decisions()
    assert rack.view() == {"n1": (1, "ok")}


def test_after_a_broken_connection_waiting_jobs_are_adopted_and_the_first_answer_wins() -> None:
    """A node was given up, and is back in the same life: attempts whose job runs elsewhere are stopped or win."""
    rack = Rack()
    rack.join("n1", slots=3)
    rack.submit("a", "b", "c")
    rack.join("n2", slots=2)
    decided = rack.handle(NodeLost("n1"))
    assert (decided.started, decided.states["a"]) == ({"c": "n2", "b": "n2"}, QUEUED)
    rack.has["n1"].remove(AttemptId("b", 1))  # it ended there while no leader could be notified
    decided = rack.poll("n1", AttemptReport(AttemptId("b", 1), Outcome.EXITED, 0))
    assert decided.states == {"b": DONE, "a": RUNNING}, "a is taken up where it never ceased to run"
    assert decided.started == {}
    assert set(decided.stopped) == {("n2", AttemptId("b", 2)), ("n1", AttemptId("c", 1))}
    assert rack.ends("c").states == {"c": DONE}
    assert (rack.where["a"], rack.ends("a").states) == (("n1", AttemptId("a", 1)), {"a": DONE})


# --- a new leader -------------------------------------------------------------------------------------------


def recovered(**known: Any) -> Rack:
    """A rack whose new leader finds job a recorded as running on n1."""
    rack = Rack()
    rack.slots["n1"], rack.lives["n1"], rack.has["n1"] = 1, 1, [AttemptId("a", 1)]
    rack.where["a"] = ("n1", AttemptId("a", 1))
    rack.submit(job("a", **{"attempts": 1, "node_id": "n1", "running": True, **known}))
    return rack


def test_a_new_leader_leaves_running_attempts_alone() -> None:
    """What the node confirms goes on, and its answer ends the job."""
    rack = recovered()
    assert rack.poll("n1") == Decisions()
    assert rack.view() == {"n1": (1, "ok")}
    assert rack.ends("a").states == {"a": DONE}


def test_a_new_leader_finds_lost_attempts() -> None:
    """An attempt that its node does not know, or whose node never answers, runs again."""
    rack = recovered()
    rack.has["n1"] = []
    assert rack.poll("n1").states == {"a": RUNNING}
    rack = recovered()
    rack.join("n2")
    assert rack.wait(6, alive=["n2"]).started == {"a": "n2"}


def test_a_running_attempt_is_not_charged_before_it_failed() -> None:
    """A job recovered in its second attempt still has its third when that one is lost."""
    rack = recovered(attempts=2)
    rack.has["n1"] = []
    rack.where["a"] = ("n1", AttemptId("a", 2))
    rack.join("n2")
    decided = rack.poll("n1")
    assert decided.wrote["a"].counts.started == 3
    assert decided.states == {"a": RUNNING}


def test_restarts_of_the_grid_do_not_count_against_a_job() -> None:
    """An attempt that was lost while the grid was down does not count towards the limit; the count of others stays."""
    rack = recovered(attempts=3, failures=2)
    rack.has["n1"] = []
    rack.where["a"] = ("n1", AttemptId("a", 3))
    decided = rack.poll("n1")
    assert (decided.states, decided.wrote["a"].counts.failures) == ({"a": RUNNING}, 2)


def test_a_new_leader_goes_on_cancelling() -> None:
    """A job found running with a cancel request is stopped: the leader before may not have done it."""
    rack = Rack()
    decided = rack.submit(job("a", attempts=1, node_id="n1", running=True, cancel_requested=True))
    assert (decided.stopped, decided.wrote) == ([("n1", AttemptId("a", 1))], {})


def test_an_attempt_that_the_store_does_not_know_of_is_adopted() -> None:
    """If the leader before started a job and could not record it, the node's report counts."""
    rack = Rack()
    rack.submit("a")
    rack.slots["n1"], rack.lives["n1"], rack.has["n1"] = 1, 1, [AttemptId("a", 1)]
    rack.where["a"] = ("n1", AttemptId("a", 1))
    decided = rack.poll("n1")
    assert (decided.states, decided.started) == ({"a": RUNNING}, {})
    assert rack.ends("a").states == {"a": DONE}


def test_a_report_of_an_attempt_that_the_store_does_not_know_of_counts() -> None:
    """An answer counts, even of an attempt that the leader before could not record."""
    rack = Rack()
    rack.submit("a")
    rack.slots["n1"], rack.lives["n1"], rack.has["n1"] = 1, 1, []
    decided = rack.poll("n1", AttemptReport(AttemptId("a", 1), Outcome.EXITED, 0))
    assert (decided.states, decided.wrote["a"].counts.started) == ({"a": DONE}, 1)
    assert decided.started == {}


def test_attempts_of_unknown_jobs_take_their_slots() -> None:
    """Attempts that a node has from an earlier leader are not killed, and hold their slots until they end."""
    rack = Rack()
    rack.slots["n1"], rack.lives["n1"] = 2, 1
    rack.has["n1"] = [AttemptId("unknown", 1)]
    assert rack.poll("n1").stopped == []
    assert list(rack.submit("a", "b").started) == ["a"]
    rack.has["n1"].remove(AttemptId("unknown", 1))
    assert rack.poll("n1").started == {"b": "n1"}


# --- what others see ----------------------------------------------------------------------------------------


def test_capacity_shows_the_parents_how_loaded_the_group_is() -> None:
    """Slots of usable nodes, attempts that hold one, jobs that wait, and a line for each node."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.join("n2", slots=4)
    rack.handle(NodeDraining("n2", True))
    rack.submit("a", "b", "c")
    capacity = rack.state.capacity(rack.now)
    assert (capacity.group_id, capacity.site) == ("rack-a", "LDN")
    assert (capacity.slots, capacity.running, capacity.queued, capacity.free) == (2, 2, 1, 0)
    assert rack.view() == {"n1": (2, "ok"), "n2": (0, "drained")}
    assert rack.state.capacity(rack.now, queued=90_000).queued == 90_000


def test_capacity_shows_how_long_attempts_take_and_what_nodes_moved() -> None:
    """The mean of the usable nodes, each by its slots, and each node's latest count of payload bytes."""
    rack = Rack()
    rack.join("n1", slots=3)
    rack.join("n2", slots=1)
    rack.join("n3", slots=4)
    assert rack.state.capacity(rack.now).mean_s is None
    for name, took_s in (("n1", 1.0), ("n2", 3.0), ("n3", 100.0)):
        rack.state.nodes[name].record_duration(took_s)
    rack.poll("n1", traffic=NodeTraffic(inputs=5, served=2))
    rack.poll("n2")
    rack.handle(NodeDraining("n3", True))
    capacity = rack.state.capacity(rack.now)
    assert capacity.mean_s == pytest.approx((3 * 1.0 + 1 * 3.0) / 4)
    moved = {node.node_id: node.traffic for node in capacity.nodes}
    assert moved == {"n1": NodeTraffic(5, 0, 0, 2), "n2": NodeTraffic(), "n3": NodeTraffic()}


def test_writes_come_before_stops_and_stops_before_starts() -> None:
    """Commands are joined by kind and node, and stops, which free slots, are sent before starts."""
    rack = Rack()
    rack.hand_overs_answered = False
    rack.join("n1", slots=3)
    commands = rack.state.handle(JobsArrived((job("a"), job("b"))), rack.now)
    assert [type(command) for command in commands] == [WriteUpdates, StartAttempts]
    [_, start] = commands
    assert isinstance(start, StartAttempts)
    assert [order.attempt for order in start.orders] == [AttemptId("a", 1), AttemptId("b", 1)]
