"""Which mechanisms a sandbox needs, and what a user reads if one is missing."""

from __future__ import annotations

from typing import Any

import pytest

from raygrid.core.sandbox_state import MECHANISMS, SandboxState
from raygrid.models import Outcome
from raygrid.node.attempt.failures import CannotRunError
from raygrid.node.sandbox.requirement import missing, require
from raygrid.settings.pricer import Pricer

PROTECT = ("mount_namespace", "landlock", "seccomp", "no_new_privs")


@pytest.mark.parametrize(
    ("mode", "active", "network", "lacks"),
    [
        ("protect", PROTECT, False, ()),
        ("protect", ("user_namespace", *PROTECT, "separate_user"), True, ()),
        ("protect", (), False, PROTECT),
        ("protect", ("landlock", "seccomp", "no_new_privs"), False, ("mount_namespace",)),
        ("strict", (*PROTECT, "network_namespace"), False, ()),
        ("strict", PROTECT, False, ("network_namespace",)),
        ("strict", PROTECT, True, ()),
        ("strict", ("seccomp",), True, ("mount_namespace", "landlock", "no_new_privs")),
        ("off", (), False, ()),
    ],
)
def test_each_mode_needs_its_mechanisms(
    mode: str, active: tuple[str, ...], network: bool, lacks: tuple[str, ...]
) -> None:
    """User namespaces are a means: root needs none. With the network allowed, strict needs no namespace for it."""
    assert missing(mode, active, network=network) == lacks


@pytest.mark.parametrize("mode", ["protect", "strict"])
def test_no_mechanism_is_needed_that_no_sandbox_has(mode: str) -> None:
    """A misspelt name would refuse every job."""
    assert set(missing(mode, ())) <= set(MECHANISMS)


def pricer(**settings: Any) -> Pricer:
    return Pricer.model_validate({"command": "price", **settings})


def test_a_refusal_names_node_pricer_what_is_missing_and_what_to_do() -> None:
    """A remedy that helps against two missing mechanisms is written once."""
    strict = SandboxState("strict", ("no_new_privs", "seccomp"))
    with pytest.raises(CannotRunError) as refused:
        require("rack-a-1", "lines", pricer(sandbox="strict", sandbox_required=True), strict)
    text = str(refused.value)
    assert refused.value.outcome is Outcome.CANNOT_START
    assert text.startswith(
        "node rack-a-1 does not run pricer 'lines', which has sandbox_required: its sandbox (strict) lacks "
        "mount_namespace, landlock, network_namespace there."
    )
    assert text.count("kernel.apparmor_restrict_unprivileged_userns=0") == 1
    assert "landlock in /sys/kernel/security/lsm" in text
    assert "CONFIG_SECCOMP" not in text
    assert text.endswith("sandbox_required: false, so that jobs run with the mechanisms that a node has")


@pytest.mark.parametrize(
    ("settings", "active"),
    [
        ({}, ()),
        ({"sandbox_required": False}, ()),
        ({"sandbox_required": True}, PROTECT),
        ({"sandbox_required": True, "sandbox": "off"}, ()),
        ({"sandbox_required": True, "sandbox": "strict", "network": True}, PROTECT),
    ],
)
def test_an_attempt_runs_if_nothing_is_required_or_nothing_is_missing(
    settings: dict[str, Any], active: tuple[str, ...]
) -> None:
    """By default a job runs with what its node has."""
    require("n1", "p", pricer(**settings), SandboxState("protect", active))
