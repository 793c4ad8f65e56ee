"""What clients see as attempts: executions that began, not mere hand-overs to a node."""

from __future__ import annotations

from datetime import UTC, datetime

from raygrid.core.group.attempts import MOST_RECALLED
from raygrid.core.group.events import HandOverEnded, NodeDraining, NodeLost
from raygrid.core.group.retry import JobRetryPolicy
from raygrid.models import AttemptId, AttemptReport, JobState, JobUpdate, Outcome
from tests.unit.test_core_group import Rack, job

AT = datetime(2026, 1, 1, tzinfo=UTC)


def shown(update: JobUpdate) -> int:
    return update.counts.began


def handed_ahead() -> Rack:
    """A node runs `a` and holds `b`, which waits there for the slot."""
    rack = Rack(prefetch=1)
    rack.join("n1")
    rack.state.nodes["n1"].record_duration(0.01)
    assert rack.submit("a", "b").started == {"a": "n1", "b": "n1"}
    return rack


def test_an_attempt_that_was_taken_back_before_it_had_a_slot_does_not_count() -> None:
    """Its number is not used again, but it is not shown."""
    rack = handed_ahead()
    rack.now += 2
    assert rack.poll("n1", waiting=1).recalled == [("n1", AttemptId("b", 1))]
    update = rack.ends("b", Outcome.CANCELLED).wrote["b"]
    assert (update.counts.started, update.counts.unstarted, shown(update)) == (1, 1, 0)
    rack.ends("a")
    assert rack.where["b"] == ("n1", AttemptId("b", 2))
    assert shown(rack.ends("b").wrote["b"]) == 1


def test_an_attempt_that_waited_on_a_lost_node_is_none() -> None:
    """Only the job that had the slot was attempted."""
    rack = handed_ahead()
    wrote = rack.handle(NodeLost("n1")).wrote
    assert {name: shown(update) for name, update in wrote.items()} == {"a": 1, "b": 0}


def test_an_attempt_whose_hand_over_never_arrived_does_not_count() -> None:
    """The node reports that it does not have it, so nothing began."""
    rack = Rack()
    rack.join("n1")
    rack.hand_overs_answered = False
    rack.submit("a")
    rack.handle(HandOverEnded("n1", (AttemptId("a", 1),), arrived=False))
    rack.hand_overs_answered = True
    decided = rack.poll("n1")
    assert (decided.started, decided.wrote["a"].counts.started, shown(decided.wrote["a"])) == ({"a": "n1"}, 2, 1)


def test_an_attempt_that_ran_and_was_moved_is_one() -> None:
    """It began, so the client sees it, though it costs the job no attempt of its limit."""
    rack = Rack()
    rack.join("n1")
    rack.submit("a")
    rack.handle(NodeDraining("n1", True, rack.now))
    rack.has["n1"] = []
    update = rack.poll("n1", AttemptReport(AttemptId("a", 1), Outcome.CANCELLED, started_at=AT)).wrote["a"]
    assert (update.state, shown(update), update.counts.recalled, update.counts.failures) == (JobState.QUEUED, 1, 1, 0)


def test_moves_do_not_count_against_a_job_at_the_next_leader() -> None:
    """However often a job was moved, the limit on attempts of any kind counts only the others."""
    rack = Rack()
    rack.join("n1")
    rack.submit(job("a", attempts=30, recalled=30))
    update = rack.ends("a", Outcome.INFRASTRUCTURE).wrote["a"]
    assert (update.state, update.counts.recalled) == (JobState.QUEUED, 30)


def test_a_full_disk_costs_a_job_no_attempt() -> None:
    """An attempt that failed on a full disk runs again without being charged, and its node is not taken for broken."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=2))
    rack.join("n1")
    rack.submit("a")
    for number in range(1, MOST_RECALLED + 1):
        decided = rack.ends("a", Outcome.DISK_FULL)
        assert decided.started == {"a": "n1"}, number
    update = rack.ends("a").wrote["a"]
    assert (update.state, update.counts.failures, update.counts.recalled) == (JobState.DONE, 0, MOST_RECALLED)


def test_a_disk_that_is_full_again_and_again_fails_the_job_in_the_end() -> None:
    """Beyond a number of such attempts they are charged, so that no job is retried for ever."""
    rack = Rack(retry=JobRetryPolicy(max_attempts=2))
    rack.join("n1")
    rack.submit("a")
    for _ in range(MOST_RECALLED):
        rack.ends("a", Outcome.DISK_FULL)
    assert rack.ends("a", Outcome.DISK_FULL).wrote["a"].counts.failures == 1
    rack.wait(1, alive=["n1"])
    update = rack.ends("a", Outcome.DISK_FULL).wrote["a"]
    assert (update.state, update.reason) == (JobState.FAILED, "disk_full")
