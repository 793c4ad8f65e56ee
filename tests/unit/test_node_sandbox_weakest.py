"""What a node states about the sandboxes of all its pricers together."""

from __future__ import annotations

from raygrid.core.sandbox_state import NO_SANDBOX, SandboxState
from raygrid.node.sandbox.weakest import weakest

PROTECT = SandboxState("protect", ("mount_namespace", "seccomp"), ("as root",))
STRICT = SandboxState("strict", ("mount_namespace", "network_namespace", "seccomp"), ())
AS_USER = SandboxState("protect", ("mount_namespace", "seccomp", "separate_user"), ())


def test_equal_sandboxes_are_stated_as_they_are() -> None:
    assert weakest({"a": PROTECT, "b": PROTECT}) == PROTECT
    assert weakest({"a": STRICT}) == STRICT


def test_the_weakest_counts_and_names_the_pricers_that_it_holds_for() -> None:
    """A strong last pricer hides no weak one."""
    found = weakest({"a": PROTECT, "b": STRICT, "c": AS_USER})
    assert found == SandboxState("protect", ("mount_namespace", "seccomp"), ("pricer a: as root",))


def test_a_pricer_without_a_sandbox_is_among_what_stays_open() -> None:
    found = weakest({"b": NO_SANDBOX, "a": NO_SANDBOX, "c": STRICT})
    assert (found.mode, found.active) == ("strict", STRICT.active)
    assert found.open == (f"pricers a, b: {NO_SANDBOX.open[0]}",)


def test_a_node_all_of_whose_pricers_have_none_has_none() -> None:
    assert weakest({"a": NO_SANDBOX}) == NO_SANDBOX
    assert weakest({}) == NO_SANDBOX


def test_many_names_are_counted() -> None:
    states = {f"p{number}": PROTECT for number in range(8)} | {"s": STRICT}
    assert weakest(states).open == ("pricers p0, p1, p2, p3, p4 and 3 more: as root",)
