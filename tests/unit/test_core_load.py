"""The load that a leader reports equals a plain look over all its nodes, and computing it again costs little."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from raygrid.core.group.events import NodeReported
from raygrid.core.group.load import GroupLoad
from raygrid.core.group.placement import NodeRecord
from raygrid.core.group.policy import GroupPolicy
from raygrid.core.group.state import GroupState
from raygrid.core.sandbox_state import SandboxState
from raygrid.models import GroupCapacity, NodeState
from tests.unit.test_core_vacancies import CHANGES, NAMES, change


def node(name: str, slots: int = 2) -> NodeRecord:
    return NodeRecord(name, "life", slots, last_seen=0.0)


def plain(nodes: dict[str, NodeRecord], quota: int | None) -> tuple[int, int, int, float | None]:
    """The specification: slots for new attempts, attempts, those of them that leave, and the mean time of attempts."""
    usable = [each for each in nodes.values() if each.healthy and not each.draining]
    slots = sum(each.slots for each in usable)
    running = sum(each.used for each in nodes.values())
    leaving = running - sum(each.used for each in usable)
    timed = [(each.slots, each.mean_s) for each in usable if each.mean_s is not None]
    known = sum(count for count, _ in timed)
    mean_s = sum(count * each_s for count, each_s in timed) / known if known else None
    return (slots if quota is None else max(0, min(slots, quota - leaving))), running, leaving, mean_s


@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES), st.one_of(CHANGES, st.sampled_from(["again", "slow", "grow"])), st.booleans()
        ),
        min_size=1,
        max_size=40,
    ),
    st.none() | st.integers(0, 8),
)
@settings(deadline=None, max_examples=300)
def test_the_load_equals_a_look_over_all_nodes(changes: list[tuple[str, str, bool]], quota: int | None) -> None:
    """Whatever happens to nodes in between, also if they go and come back: sums, mean and order agree."""
    nodes = {name: node(name) for name in NAMES}
    load = GroupLoad("rack-a", nodes)
    for name in nodes:
        load.touch(name)
    for second, (name, what, decided) in enumerate(changes):
        now = float(second)
        if what in ("go", "again"):
            nodes.pop(name, None)
        if what in ("come", "again"):
            nodes.setdefault(name, node(name, slots=3))
        elif name in nodes:
            change(nodes[name], what, now)
            if what == "slow":
                nodes[name].raise_mean(7.3)
            elif what == "grow":
                nodes[name].slots += 1
        load.touch(name)
        if decided:
            found = load.capacity(None, quota, 5, now)
            assert (found.slots, found.running, found.leaving, found.mean_s) == plain(nodes, quota)
            assert [view.node_id for view in found.nodes] == list(nodes)
            assert [view.state for view in found.nodes] == [each.state(now) for each in nodes.values()]
            assert [view.running for view in found.nodes] == [each.used for each in nodes.values()]


class Watched(dict[str, NodeRecord]):
    """Counts how often a node is looked at."""

    looks = 0

    def __getitem__(self, name: str) -> NodeRecord:
        self.looks += 1
        return super().__getitem__(name)

    def get(self, name: str, default: object = None) -> NodeRecord | None:  # type: ignore[override]  # only what the load uses of `dict`
        self.looks += 1
        return super().get(name)

    def __iter__(self) -> Iterator[str]:
        self.looks += len(self)
        return super().__iter__()

    def values(self) -> object:  # type: ignore[override]  # only what the load uses of `dict`
        self.looks += len(self)
        return super().values()


def test_only_nodes_that_changed_are_looked_at_again() -> None:
    """Of a thousand nodes one has changed: computing the load again looks at that one."""
    nodes = Watched({f"n{number}": node(f"n{number}") for number in range(1_000)})
    load = GroupLoad("rack-a", nodes)
    for number in range(1_000):
        load.touch(f"n{number}")
    assert load.capacity(None, None, 0, 0.0).slots == 2_000
    nodes["n7"].draining = True
    load.touch("n7")
    nodes.looks = 0
    assert load.capacity(None, None, 0, 1.0).slots == 1_998
    assert nodes.looks == 1


def load_with(sandboxes: dict[str, SandboxState]) -> GroupCapacity:
    """The load of a group whose nodes report these sandboxes, each in a message of its own."""
    group = GroupState("rack-a", GroupPolicy())
    for name, sandbox in sandboxes.items():
        state = pickle.loads(pickle.dumps(NodeState(name, "life", 2, sandbox=sandbox)))  # noqa: S301 - made here
        group.handle(NodeReported(state, (), asked_at=0.0), 0.0)
    return group.capacity(0.0)


def test_the_load_names_the_sandbox_of_each_node() -> None:
    """Also of a node that changes it."""
    protect, strict = SandboxState("protect", ("landlock",), ("Signals pass.",)), SandboxState("strict")
    assert [view.sandbox for view in load_with({"a": protect, "b": strict}).nodes] == [protect, strict]


def test_equal_sandboxes_travel_once() -> None:
    """A leader's reply names every node many times a second; the sentences of a thousand nodes would be most of it."""
    sandbox = SandboxState("protect", ("landlock", "seccomp"), tuple(f"{text} stays open" * 9 for text in "abcd"))
    loads = [load_with({f"n{number}": sandbox for number in range(count)}) for count in (10, 110)]
    small, large = (len(pickle.dumps(load)) for load in loads)
    assert large - small < 100 * 150
