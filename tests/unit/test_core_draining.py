"""A group whose nodes are drained: running jobs end, no new ones come, and at the deadline the rest moves."""

from __future__ import annotations

from datetime import UTC, datetime

from raygrid.core.group.events import NodeDraining, NodeLost, Tick
from raygrid.core.group.retry import JobRetryPolicy
from raygrid.models import AttemptId, JobState, Outcome
from tests.unit.test_core_group import Decisions, Rack, job

QUEUED, RUNNING, DONE, FAILED, CANCELLED = JobState


def test_a_node_is_drained_once_it_holds_nothing() -> None:
    """It is draining while an attempt runs there, drained afterwards, and neither after an undrain."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    assert rack.handle(NodeDraining("n1", True)).stopped == []
    assert rack.view() == {"n1": (1, "draining")}
    rack.ends("a")
    assert rack.view() == {"n1": (0, "drained")}
    rack.handle(NodeDraining("n1", False))
    assert rack.view() == {"n1": (0, "ok")}


def test_an_unhealthy_node_can_be_seen_to_be_drained() -> None:
    """A wait for the drain ends although the node is also out of disk; the reason stays."""
    rack = Rack()
    rack.join("n1")
    rack.handle(NodeDraining("n1", True))
    rack.poll("n1", healthy=False, why="disk full")
    [view] = rack.state.capacity(rack.now).nodes
    assert (view.state, view.why) == ("drained", "disk full")


def test_what_waits_on_a_draining_node_without_a_slot_is_taken_back() -> None:
    """What was handed over ahead runs elsewhere at once, without being charged; what has a slot may finish."""
    rack = Rack(prefetch=1)
    rack.join("n1")
    rack.state.nodes["n1"].record_duration(0.05)
    rack.submit("runs", "waits")
    rack.join("n2")
    rack.handle(NodeDraining("n1", True))
    assert rack.poll("n1", waiting=1).recalled == [("n1", AttemptId("waits", 1))]
    decided = rack.ends("waits", Outcome.CANCELLED)
    assert decided.started == {"waits": "n2"}
    assert decided.wrote["waits"].counts.failures == 0
    assert rack.ends("runs").states == {"runs": DONE}


def test_at_the_deadline_the_rest_moves_and_nothing_is_charged() -> None:
    """A job that still runs at the deadline is stopped there and runs elsewhere, as if it had not been tried."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=1))
    rack.join("n1")
    rack.submit("long")
    rack.join("n2")
    rack.handle(NodeDraining("n1", True, rack.now + 10))
    assert rack.wait(9, alive=["n1", "n2"]).stopped == []
    [view] = [view for view in rack.state.capacity(rack.now).nodes if view.node_id == "n1"]
    assert view.drain_deadline_at is not None
    assert view.drain_deadline_at > datetime.fromtimestamp(rack.now, UTC)
    assert ("n1", AttemptId("long", 1)) in rack.wait(2, alive=["n1", "n2"]).stopped
    decided = rack.ends("long", Outcome.CANCELLED)
    assert decided.started == {"long": "n2"}
    assert (decided.wrote["long"].counts.started, decided.wrote["long"].counts.failures) == (2, 0)
    assert rack.ends("long").states == {"long": DONE}


def test_a_deadline_that_is_over_stops_at_once_and_again_until_it_is_done() -> None:
    """With no time left the stop is sent with the request itself, and repeated while the node has the attempt."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    stop = ("n1", AttemptId("a", 1))
    assert rack.handle(NodeDraining("n1", True, rack.now)).stopped == [stop]
    assert rack.handle(Tick()).stopped == []
    assert rack.wait(2, alive=["n1"]).stopped == [stop]


def test_an_answer_that_came_before_the_stop_counts() -> None:
    """An attempt that ended by itself just before it was stopped has answered; nothing runs again."""
    rack = Rack()
    rack.join("n1")
    rack.join("n2")
    rack.submit("a")
    rack.handle(NodeDraining(rack.node_of("a"), True, rack.now))
    assert rack.ends("a").states == {"a": DONE}


def test_without_another_node_the_job_waits() -> None:
    """A job whose only node is drained waits, however long, and runs after the undrain."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.handle(NodeDraining("n1", True, rack.now))
    assert rack.ends("a", Outcome.CANCELLED).states == {"a": QUEUED}
    assert rack.wait(60, alive=["n1"]) == Decisions()
    assert rack.handle(NodeDraining("n1", False)).started == {"a": "n1"}


def test_a_job_may_be_moved_any_number_of_times() -> None:
    """A long job that meets one drain after another never fails for it."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=1))
    rack.join("n1")
    rack.join("n2")
    rack.submit("a")
    for _ in range(20):
        here = rack.node_of("a")
        rack.wait(2, alive=["n1", "n2"])
        rack.handle(NodeDraining(here, True, rack.now))
        assert rack.ends("a", Outcome.CANCELLED).wrote["a"].counts.failures == 0
        rack.handle(NodeDraining(here, False))
    assert "a" in rack.state
    assert rack.ends("a").states == {"a": DONE}


def test_a_node_that_goes_away_after_its_deadline_charges_no_job() -> None:
    """Ops may switch a node off when its time is over; jobs that it still had by then are not charged."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=1))
    rack.join("n1")
    rack.submit("a")
    rack.handle(NodeDraining("n1", True, rack.now))
    decided = rack.handle(NodeLost("n1"))
    assert decided.states == {"a": QUEUED}
    assert decided.wrote["a"].counts.failures == 0


def test_a_cancelled_job_is_not_moved() -> None:
    """A job that its client cancels while its node is drained ends as cancelled."""
    rack = Rack()
    rack.join("n1")
    rack.join("n2")
    rack.submit("a")
    rack.handle(NodeDraining(rack.node_of("a"), True, rack.now))
    rack.cancel("a")
    assert rack.ends("a", Outcome.CANCELLED).states == {"a": CANCELLED}


def test_a_job_that_failed_elsewhere_does_not_wait_for_a_draining_node() -> None:
    """A node that is being drained is no better place to wait for."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.join("n2")
    rack.handle(NodeDraining("n2", True))
    rack.ends("a", Outcome.INFRASTRUCTURE)
    assert rack.wait(2, alive=["n1", "n2"]).started == {"a": "n1"}


def test_what_a_draining_node_still_runs_takes_no_slot_of_the_others() -> None:
    """Two jobs on a draining node leave the free slot of its neighbour free for routing."""
    rack = Rack()
    rack.join("n1", slots=2)
    rack.submit("a", "b")
    rack.join("n2", slots=1)
    rack.handle(NodeDraining("n1", True))
    capacity = rack.state.capacity(rack.now)
    assert (capacity.slots, capacity.running, capacity.busy, capacity.free) == (1, 2, 0, 1)


def test_what_a_draining_node_still_runs_counts_towards_the_quota() -> None:
    """With a quota of three and two jobs on a draining node, one slot is left to fill."""
    rack = Rack(quota=3)
    rack.join("n1", slots=2)
    rack.submit("a", "b")
    rack.join("n2", slots=4)
    rack.handle(NodeDraining("n1", True))
    capacity = rack.state.capacity(rack.now)
    assert (capacity.slots, capacity.running, capacity.free) == (1, 2, 1)
    assert len(rack.submit(job("c"), job("d")).started) == 1
    assert rack.state.capacity(rack.now).free == 0
