"""The attacks are real: where nothing protects what they aim at, they reach it."""

from __future__ import annotations

from tests.hostile.conftest import RunIsolated
from tests.hostile.eighteen import EIGHTEEN

# Refused to every user by the kernel: they show something only where a sandbox gives capabilities.
REFUSED_TO_USERS = {
    *("open-by-handle", "write-proc-sys", "escape-cgroup", "have-capabilities", "mount", "mount-by-int80", "unmount"),
    *("clone-mount", "new-file-system", "change-mount", "change-root", "new-mount-namespace", "bpf", "load-module"),
    *("raise-priority", "raw-socket", "enter-namespaces", "enter-namespaces-by-int80"),
}
# Refused here, because dummies have neither these doors nor a server of Ray, or the kernel has no x32 table.
REFUSED_BY_DUMMIES = {
    *("climb-from-descriptors", "inherit-descriptor", "call-ray-without-token", "read-other-http"),
    *("new-user-namespace-by-x32", "signal-by-x32"),
}


def test_attacks_reach_dummies_without_a_sandbox(run_isolated: RunIsolated) -> None:
    """Each attack that the kernel does not refuse to every user succeeds where nothing protects what it aims at."""
    lines = run_isolated("tests.hostile.dummy_run", timeout_s=120)
    assert {line["attack"] for line in lines} >= EIGHTEEN.keys()
    refused = {line["attack"].partition(":")[0]: line["detail"] for line in lines if line["succeeded"] is False}
    unexpected = {name: why for name, why in refused.items() if name not in REFUSED_TO_USERS | REFUSED_BY_DUMMIES}
    assert unexpected == {}
