"""A job that runs far beyond its usual time: one more attempt where a slot idles, and the first answer counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raygrid.core.group.events import NodeDraining, NodeLost
from raygrid.core.group.stragglers import LEAST_KNOWN, StragglerPolicy, UsualTimes, limits, most_at_once
from raygrid.models import AttemptId, AttemptReport, JobState, Outcome
from tests.unit.test_core_group import Decisions, Rack, job

POLICY = {"p": StragglerPolicy(factor=3.0, min_s=2.0)}
ONE, TWO = AttemptId("slow", 1), AttemptId("slow", 2)


def racks(nodes: int = 2, slots: int = 2, **policy: Any) -> Rack:
    """A rack whose jobs of pricer p usually take a second."""
    rack = Rack(**{"stragglers": POLICY, "node_timeout_s": 1e6, **policy})
    for number in range(nodes):
        rack.join(f"n{number + 1}", slots=slots)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(LEAST_KNOWN):
        rack.submit(f"usual-{number}")
        rack.ends(f"usual-{number}", started_at=began, ended_at=began + timedelta(seconds=1))
    return rack


def doubled() -> tuple[Rack, str, str]:
    """A rack with a straggler that has its second attempt, and the nodes of the two."""
    rack = racks()
    rack.submit("slow")
    first = rack.node_of("slow")
    rack.wait(4)
    second = rack.node_of("slow")
    assert rack.where["slow"] == (second, TWO)
    assert first != second
    return rack, first, second


def end(
    rack: Rack, node: str, attempt: AttemptId, outcome: Outcome = Outcome.EXITED, code: int | None = 0
) -> Decisions:
    rack.has[node].remove(attempt)
    return rack.poll(node, AttemptReport(attempt, outcome, code))


def test_a_straggler_gets_a_second_attempt_on_another_node() -> None:
    """After three times the usual time, not before, and only once; the store learns the attempt's number."""
    rack = racks()
    rack.submit("slow")
    first = rack.node_of("slow")
    assert rack.wait(2.9).started == {}
    decided = rack.wait(1)
    assert decided.started.keys() == {"slow"}
    assert decided.started["slow"] != first
    update = decided.wrote["slow"]
    assert (update.state, update.counts.started, update.node_id) == (JobState.RUNNING, 2, first)
    assert rack.wait(60).started == {}


@pytest.mark.parametrize("first_wins", [True, False])
@pytest.mark.parametrize("code", [0, 1])
def test_the_first_answer_counts_and_the_other_attempt_is_stopped(first_wins: bool, code: int) -> None:
    """Whichever of the two answers first: its answer is the job's, and the other one is killed."""
    rack, first, second = doubled()
    answered, other = ((first, ONE), (second, TWO))[:: 1 if first_wins else -1]
    decided = end(rack, *answered, code=code)
    assert decided.states == {"slow": JobState.FAILED if code else JobState.DONE}
    assert (decided.wrote["slow"].node_id, decided.stopped) == (answered[0], [other])
    late = end(rack, *other, code=0)
    assert (late.wrote, late.started) == ({}, {})
    assert rack.state.capacity(rack.now).running == 0


@pytest.mark.parametrize("first_fails", [True, False])
@pytest.mark.parametrize("how", ["reported", "gone", "node lost", "killed"])
def test_a_failure_of_one_of_the_two_costs_nothing_and_the_other_goes_on(first_fails: bool, how: str) -> None:
    """Nothing is charged and nothing starts; the store has the node of the attempt that goes on; it may answer."""
    rack, first, second = doubled()
    failed, other = ((first, ONE), (second, TWO))[:: 1 if first_fails else -1]
    if how == "node lost":
        rack.has[failed[0]] = []
        decided = rack.handle(NodeLost(failed[0]))
    elif how == "gone":
        rack.has[failed[0]] = []
        decided = rack.poll(failed[0])
    else:
        decided = end(rack, *failed, Outcome.INFRASTRUCTURE if how == "reported" else Outcome.CANCELLED, None)
    assert decided.started == {}
    if first_fails:
        assert (decided.wrote["slow"].state, decided.wrote["slow"].node_id) == (JobState.RUNNING, second)
    update = end(rack, *other).wrote["slow"]
    assert (update.state, update.counts.failures, update.counts.losses, update.counts.started) == (
        JobState.DONE,
        0,
        0,
        2,
    )


def test_a_job_that_loses_both_attempts_runs_again() -> None:
    """The second failure counts as that of any only attempt, and the next attempt has the next number."""
    rack, first, second = doubled()
    end(rack, first, ONE, Outcome.INFRASTRUCTURE, None)
    decided = end(rack, second, TWO, Outcome.INFRASTRUCTURE, None)
    assert decided.wrote["slow"].counts.failures == 1
    rack.wait(1)
    assert rack.where["slow"][1] == AttemptId("slow", 3)


def test_a_cancel_stops_both() -> None:
    """Both attempts of a cancelled job are killed, and it is cancelled with the first of them."""
    rack, first, second = doubled()
    assert sorted(rack.cancel("slow").stopped) == sorted([(first, ONE), (second, TWO)])
    assert end(rack, second, TWO, Outcome.CANCELLED, None).states == {"slow": JobState.CANCELLED}


def test_a_drained_node_ends_its_one_of_two() -> None:
    """The job has its other attempt already: nothing else starts."""
    rack, first, second = doubled()
    assert rack.handle(NodeDraining(first, True, rack.now)).stopped == [(first, ONE)]
    assert end(rack, first, ONE, Outcome.CANCELLED, None).started == {}
    assert end(rack, second, TWO).states == {"slow": JobState.DONE}


def test_only_idle_slots_are_used() -> None:
    """While a job waits, or if no other node has a free slot, no straggler gets a second attempt."""
    rack = racks(nodes=2, slots=1)
    rack.submit("slow", "also")
    rack.submit("waits")
    assert rack.wait(20).started == {}
    rack.has[rack.node_of("also")].remove(rack.where["also"][1])
    decided = rack.poll(rack.node_of("also"), AttemptReport(rack.where["also"][1], Outcome.EXITED, 0))
    assert decided.started.keys() == {"waits"}
    assert rack.wait(1).started == {}


def test_second_attempts_take_a_bounded_share_of_the_slots() -> None:
    """Of forty slots at most four have second attempts, those that are most beyond their time."""
    rack = racks(nodes=2, slots=20)
    for number in range(8):
        rack.submit(f"slow-{number}")
    started = rack.wait(30).started
    assert sorted(started) == [f"slow-{number}" for number in range(4)]
    assert (most_at_once(3), most_at_once(40)) == (1, 4)


def test_the_quota_holds_for_second_attempts() -> None:
    """A group at its quota starts none."""
    rack = racks(quota=1)
    rack.submit("slow")
    assert rack.wait(30).started == {}


def test_other_pricers_and_too_few_answers_double_nothing() -> None:
    """Off unless configured, and inactive until enough answers have shown what is usual."""
    rack = racks()
    rack.submit(job("other", pricer="q"))
    assert rack.wait(30).started == {}
    fresh = Rack(stragglers=POLICY)
    fresh.join("n1")
    fresh.join("n2")
    fresh.submit("slow")
    assert fresh.wait(30, alive=("n1", "n2")).started == {}


def test_a_job_that_lost_a_node_gets_no_second_attempt() -> None:
    """A job that may have killed a node runs on one node at a time."""
    rack = racks(nodes=3)
    rack.submit("slow")
    rack.handle(NodeLost(rack.node_of("slow")))
    assert rack.wait(30).started == {}


@pytest.mark.parametrize("first_speaks_first", [True, False])
def test_after_a_change_of_leader_one_of_the_two_goes_on(first_speaks_first: bool) -> None:
    """The next leader keeps one attempt and stops the other, and runs nothing anew."""
    rack = Rack(stragglers=POLICY)
    rack.submit(job("slow", attempts=2, node_id="n1", running=True))
    for name, attempt in (("n1", ONE), ("n2", TWO)):
        rack.slots[name], rack.lives[name], rack.has[name] = 1, 1, [attempt]
    stopped = []
    for name in ("n1", "n2", "n1", "n2") if first_speaks_first else ("n2", "n1", "n2", "n1"):
        decided = rack.poll(name)
        assert decided.started == {}
        stopped += decided.stopped
    assert set(stopped) == {("n2", TWO)}
    assert end(rack, "n1", ONE).states == {"slow": JobState.DONE}


def test_after_a_change_of_leader_the_answer_of_the_second_frees_the_slot_of_the_first() -> None:
    """The store has one node per job, and the highest number: the next leader takes them for one attempt."""
    rack = Rack(stragglers=POLICY)
    rack.submit(job("slow", attempts=2, node_id="n1", running=True))
    for name, has in (("n1", [ONE]), ("n2", [TWO])):
        rack.slots[name], rack.lives[name], rack.has[name] = 1, 1, has
    assert end(rack, "n2", TWO).states == {"slow": JobState.DONE}
    assert not any(node.held for node in rack.state.nodes.values())


@given(st.lists(st.floats(0.001, 1e4), max_size=200), st.floats(1, 10), st.floats(0.1, 100))
def test_the_limit_is_never_below_what_is_usual(times: list[float], factor: float, min_s: float) -> None:
    """It is at least the least time and the factor times what half of the jobs exceed; unknown while little is."""
    usual = UsualTimes()
    for seconds in times:
        usual.add("p", seconds)
    found = limits({"p": StragglerPolicy(factor, min_s), "q": StragglerPolicy()}, usual)
    assert found.keys() == ({"p"} if len(times) >= LEAST_KNOWN else set())
    if found:
        latest = times[-64:]
        assert found["p"] >= min_s
        assert sum(each <= found["p"] for each in latest) >= len(latest) / 2
