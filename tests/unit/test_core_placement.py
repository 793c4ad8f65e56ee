"""Choosing a node, and what a group keeps about each node for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from raygrid.core.group.placement import PREFETCH_LIMIT, NodeRecord, least_loaded, weighted_round_robin, with_room
from raygrid.models import AttemptId


def node(name: str = "n1", slots: int = 4, *, used: int = 0, **known: Any) -> NodeRecord:
    record = NodeRecord(name, "life-1", slots, last_seen=0.0, **known)
    record.held = {AttemptId(f"{name}-{number}", 1): 0.0 for number in range(used)}
    return record


# --- policies -----------------------------------------------------------------------------------------------


def test_least_loaded_takes_the_node_with_most_free_slots() -> None:
    """Free slots decide, not how many attempts a node holds; the name decides among equals."""
    assert least_loaded([node("a", 2), node("b", 8, used=5), node("c", 4, used=3)]).node_id == "b"
    assert least_loaded([node("a"), node("c"), node("b")]).node_id == "c"


def test_weighted_round_robin_is_smooth() -> None:
    """Weights 5, 1, 1 give the sequence known from nginx: in proportion, and never five in a row."""
    nodes = [node("a", 1, weight=5.0), node("c", 1), node("b", 1)]
    turns = [weighted_round_robin(nodes).node_id for _ in range(7)]
    assert turns == ["a", "a", "c", "a", "b", "a", "a"]


def test_weighted_round_robin_is_in_proportion_to_weight_times_slots() -> None:
    """Over many turns each node gets its exact share, and at no moment is it off by a whole turn or more."""
    nodes = [node("a", 8), node("b", 2, weight=2.0), node("c", 4, weight=0.5)]
    shares = {"a": 8 / 14, "b": 4 / 14, "c": 2 / 14}
    counts: Counter[str] = Counter()
    for turn in range(1, 141):
        counts[weighted_round_robin(nodes).node_id] += 1
        assert all(abs(counts[name] - share * turn) < 1.0 for name, share in shares.items())
    assert counts == {"a": 80, "b": 40, "c": 20}


# --- room ---------------------------------------------------------------------------------------------------


def test_room_is_what_the_slots_leave() -> None:
    """Held and foreign attempts take slots; room never falls below zero."""
    assert node(slots=4, used=1).room(0.0, 0) == 3
    assert node(slots=4, used=1, foreign=2).room(0.0, 0) == 1
    assert node(slots=2, used=5).room(0.0, 0) == 0


def test_unhealthy_and_draining_nodes_have_no_room() -> None:
    """They finish what they hold and get nothing more."""
    nodes = [node("ok"), node("ill", healthy=False), node("draining", draining=True), node("full", 1, used=1)]
    assert [n.node_id for n in with_room(nodes, 0.0, 0)] == ["ok"]
    assert [n.state(0.0) for n in nodes] == ["ok", "unhealthy", "drained", "ok"]


def test_short_attempts_are_handed_over_ahead_and_long_ones_are_not() -> None:
    """Prefetch is about 0.2 s of work, none before durations are known, none of work that takes longer."""
    record = node(slots=4)
    assert record.prefetch(1) == 0
    record.record_duration(0.01)
    assert (record.prefetch(1), record.prefetch(2), record.prefetch(0)) == (80, 160, 0)
    assert (node(mean_s=1.0).prefetch(1), node(mean_s=0.001).prefetch(1)) == (0, PREFETCH_LIMIT)
    assert record.room(0.0, 1) == 84


def test_recent_durations_weigh_more() -> None:
    """The mean moves a fifth of the way with every attempt; a clock that went backwards does no harm."""
    record = node()
    for seconds in (1.0, 2.0):
        record.record_duration(seconds)
    assert record.mean_s == pytest.approx(1.2)
    record = node()
    record.record_duration(-5.0)
    assert record.mean_s == 1e-3


# --- nodes that fail every job ------------------------------------------------------------------------------


def failing(record: NodeRecord, times: int, now: float = 0.0) -> NodeRecord:
    for _ in range(times):
        record.failed(now, after=3, probation_s=15.0)
    return record


def test_failure_after_failure_puts_a_node_on_probation() -> None:
    """After three in a row it gets nothing for a while, so that it does not take the whole queue."""
    assert failing(node(), 2).room(0.0, 0) == 4
    record = failing(node(), 3)
    assert (record.state(14.9), record.room(14.9, 0)) == ("probation", 0)
    assert record.state(15.0) == "ok"


def test_after_probation_one_attempt_at_a_time_proves_the_node() -> None:
    """It gets a single attempt, then none until that one has answered."""
    record = failing(node(), 3)
    assert record.room(15.0, 1) == 1
    record.held[AttemptId("j", 1)] = 15.0
    assert record.room(15.0, 1) == 0


def test_one_failure_after_probation_doubles_it() -> None:
    """Each further probation lasts twice as long, up to sixteen times."""
    record, now, lengths = failing(node(), 3), 0.0, []
    for _ in range(7):
        assert record.probation_until is not None
        lengths.append(record.probation_until - now)
        now = record.probation_until
        failing(record, 1, now)
    assert lengths == [15.0, 30.0, 60.0, 120.0, 240.0, 240.0, 240.0]


def test_one_success_clears_a_node() -> None:
    """After a success it has all its slots, and three more failures are needed again."""
    record = failing(node(), 3)
    record.succeeded("p")
    assert (record.room(0.0, 0), record.state(0.0)) == (4, "ok")
    assert failing(record, 2).state(0.0) == "ok"
    assert failing(record, 1).state(0.0) == "probation"
    assert record.probation_until == 15.0


def test_a_pricer_that_cannot_start_blocks_only_itself() -> None:
    """After three failed starts in a row only that pricer goes elsewhere for a while."""
    record = node()
    for _ in range(3):
        assert not record.is_blocked("p", 0.0)
        record.could_not_start("p", 0.0, after=3, probation_s=15.0)
    assert (record.is_blocked("p", 14.9), record.is_blocked("p", 15.0), record.is_blocked("q", 0.0)) == (
        True,
        False,
        False,
    )
    assert record.room(0.0, 0) == 4
    record.could_not_start("p", 20.0, after=3, probation_s=15.0)
    assert record.is_blocked("p", 34.9)
    record.succeeded("p")
    assert not record.is_blocked("p", 21.0)


def test_two_equal_records_are_two_nodes() -> None:
    """Records are compared by identity: equal fields do not make two nodes one."""
    record = node()
    assert replace(record) != record
