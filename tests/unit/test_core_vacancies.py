"""Choosing among many nodes costs little, and chooses exactly what a plain look over all nodes would choose."""

from __future__ import annotations

from collections.abc import Iterable, Set
from copy import copy

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from raygrid.core.group import jobs
from raygrid.core.group.placement import POLICIES, NodeRecord, Policy, least_loaded, with_room
from raygrid.core.group.vacancies import Suits, Vacancies
from raygrid.core.sorted_names import SortedNames
from raygrid.models import AttemptId
from tests.simulation.run import run_seed
from tests.unit.test_core_group_properties import GroupInAHostileWorld


def plain_pick(
    choose: Policy,
    nodes: list[NodeRecord],
    all_nodes: Iterable[NodeRecord],
    failed_on: Set[str],
    pricer: str,
    now: float,
) -> NodeRecord | None:
    """The specification: among the nodes with room, one on which the job has not failed where there is any."""

    def suits(node: NodeRecord) -> bool:
        return node.node_id not in failed_on and not node.is_blocked(pricer, now)

    fresh = [node for node in nodes if suits(node)]
    if fresh:
        return choose(fresh)
    waiting_helps = any(suits(node) and node.state(now) == "ok" for node in all_nodes)
    return None if waiting_helps else choose(nodes)


class Checked(Vacancies):
    """Compares every choice with the specification."""

    choices = 0

    def settle(self, now: float, prefetch_factor: int) -> None:
        super().settle(now, prefetch_factor)
        self._plain = with_room(self._nodes.values(), now, prefetch_factor)
        assert sorted(self._roomy) == sorted(node.node_id for node in self._plain)
        assert self.used == sum(node.used for node in self._nodes.values())

    def pick(
        self, choose: Policy, failed_on: Set[str], pricer: str, now: float, joins: Suits | None = None
    ) -> NodeRecord | None:
        fit = [node for node in self._plain if joins is None or joins(node)]
        copies = {node.node_id: copy(node) for node in self._nodes.values()}  # a choice may change credits
        wanted = plain_pick(choose, [copies[node.node_id] for node in fit], copies.values(), failed_on, pricer, now)
        chosen = super().pick(choose, failed_on, pricer, now, joins)
        assert (chosen and chosen.node_id) == (wanted and wanted.node_id)
        assert [node.credit for node in self._nodes.values()] == [node.credit for node in copies.values()]
        Checked.choices += 1
        return chosen


# --- against the specification ------------------------------------------------------------------------------

NAMES = [f"n{number}" for number in range(6)]
CHANGES = st.sampled_from(
    [
        "take",
        "take",
        "give",
        "heal",
        "ail",
        "drain",
        "fail",
        "fail",
        "succeed",
        "cannot",
        "cannot",
        "quick",
        "go",
        "come",
    ]
)


def change(node: NodeRecord, what: str, now: float) -> None:
    """Something happens to a node."""
    match what:
        case "take":
            node.held[AttemptId(f"{node.node_id}-{now}", 1)] = now
        case "give":
            node.held.pop(next(iter(node.held), AttemptId("", 0)), None)
        case "heal" | "ail":
            node.healthy = what == "heal"
        case "drain":
            node.draining = not node.draining
        case "fail":
            node.failed(now, after=2, probation_s=3.0)
        case "succeed":
            node.succeeded("p")
        case "cannot":
            node.could_not_start("p", now, after=2, probation_s=3.0)
        case "quick":
            node.record_duration(0.05)


@given(
    st.lists(st.tuples(st.sampled_from(NAMES), CHANGES), min_size=1, max_size=40),
    st.sampled_from(sorted(POLICIES)),
    st.integers(0, 1),
    st.sets(st.sampled_from(NAMES)),
    st.sets(st.sampled_from(NAMES)),
    st.lists(st.integers(1, 3), min_size=len(NAMES), max_size=len(NAMES)),
)
@settings(deadline=None, max_examples=300)
def test_the_choice_equals_a_look_over_all_nodes(
    changes: list[tuple[str, str]], policy: str, factor: int, failed_on: set[str], apart: set[str], slots: list[int]
) -> None:
    """Whatever happens to nodes in between, the node chosen is the one of the specification, credits included."""

    def make(name: str) -> NodeRecord:
        return NodeRecord(name, "life", slots[NAMES.index(name)], last_seen=0.0, weight=1.0 + NAMES.index(name) % 2)

    nodes = {name: make(name) for name in NAMES}
    checked = Checked(nodes)
    for name in nodes:
        checked.touch(name)
    now = 0.0
    for name, what in changes:
        now += 1.0
        if what == "go":
            nodes.pop(name, None)
        elif what == "come":
            nodes.setdefault(name, make(name))
        elif name in nodes:
            change(nodes[name], what, now)
        checked.touch(name)
        checked.settle(now, factor)
        for failed, joins in (
            (set[str](), None),
            (failed_on, None),
            (failed_on, lambda node: node.node_id not in apart),
        ):
            if checked and (joins is None or checked.any(joins)):
                checked.pick(POLICIES[policy], failed, "p", now, joins)


def test_a_group_notices_every_node_that_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under random faults, every choice of a node is the one of the specification: no change goes unnoticed."""
    monkeypatch.setattr(jobs, "Vacancies", Checked)
    before = Checked.choices
    while Checked.choices - before <= 100:  # a run of random steps that chooses seldom is followed by another
        run_state_machine_as_test(
            GroupInAHostileWorld,
            settings=settings(
                max_examples=100,
                stateful_step_count=40,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )


def test_a_grid_under_faults_places_by_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that die, freeze, fill up and come back, quotas and windows: every choice is the plain one."""
    monkeypatch.setattr(jobs, "Vacancies", Checked)
    before = Checked.choices
    assert [run_seed(seed).violation for seed in range(6)] == [None] * 6
    assert Checked.choices - before > 100


# --- how many nodes are looked at ---------------------------------------------------------------------------


def test_only_nodes_that_have_changed_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among a thousand nodes, a choice looks at the one that was taken and no other."""
    nodes = {f"n{number:04}": NodeRecord(f"n{number:04}", "life", 4, last_seen=0.0) for number in range(1_000)}
    vacancies = Vacancies(nodes)
    for name in nodes:
        vacancies.touch(name)
    vacancies.settle(0.0, 0)
    looked_at: list[str] = []
    room = NodeRecord.room

    def recorded_room(record: NodeRecord, now: float, factor: int) -> int:
        looked_at.append(record.node_id)
        return room(record, now, factor)

    monkeypatch.setattr(NodeRecord, "room", recorded_room)
    for number in range(10):
        node = vacancies.pick(least_loaded, set(), "p", 0.0)
        assert node is not None
        assert node.node_id == f"n{999 - number:04}"
        node.held[AttemptId(str(number), 1)] = 0.0
        vacancies.touch(node.node_id)
        vacancies.settle(0.0, 0)
    assert looked_at == [f"n{999 - number:04}" for number in range(10)]


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.none() | st.integers(0, 3))))
def test_names_stand_in_the_order_of_their_latest_keys(changes: list[tuple[str, int | None]]) -> None:
    """However often keys change, the order is that of sorting anew."""
    ordered, plain = SortedNames(), dict[str, int]()
    for name, key in changes:
        if key is None:
            ordered.drop(name)
            plain.pop(name, None)
        else:
            ordered.put(name, key)
            plain[name] = key
        wanted = sorted(plain, key=lambda name: (plain[name], name))
        assert (list(ordered), list(reversed(ordered))) == (wanted, wanted[::-1])
        assert [name in ordered for name in NAMES] == [name in plain for name in NAMES]
