"""Decides whether a sandbox has the mechanisms that its mode needs, for pricers with `sandbox_required`. No I/O.

Without that setting an attempt runs with what its node has; `raygrid nodes --sandbox` and the manifest show it. Only a
`sandbox_user` is never optional: a pricer that was meant for another user must not run as root.
"""

from __future__ import annotations

from collections.abc import Collection

from raygrid.core.sandbox_state import SandboxState
from raygrid.models import Outcome
from raygrid.node.attempt.failures import CannotRunError
from raygrid.settings.pricer import Pricer

_PROTECT = ("mount_namespace", "landlock", "seccomp", "no_new_privs")
_NAMESPACES = (
    "Namespaces need user namespaces, unless the grid runs as root: on Ubuntu 24.04 load an AppArmor profile with "
    "`userns` for the grid's Python, or set sysctl kernel.apparmor_restrict_unprivileged_userns=0; elsewhere check "
    "sysctl user.max_user_namespaces and kernel.unprivileged_userns_clone; in a container allow unshare and mount"
)
# What to do about a missing mechanism.
_REMEDIES = {
    "mount_namespace": _NAMESPACES,
    "network_namespace": _NAMESPACES,
    "landlock": "Landlock needs Linux 5.13 or newer, with landlock in /sys/kernel/security/lsm (boot parameter lsm=)",
    "separate_user": (
        "For sandbox_user the grid must run as root, and may mount; remove it if pricers may be the grid's user"
    ),
    "seccomp": "Filters of system calls need a kernel with CONFIG_SECCOMP_FILTER, and x86_64 or aarch64",
}


def missing(mode: str, active: Collection[str], *, network: bool = False) -> tuple[str, ...]:
    """The mechanisms that a sandbox needs and lacks.

    Args:
        mode: `protect`, `strict` or `off`; `off` needs none.
        active: the mechanisms that are active.
        network: whether the pricer may use the network; then `strict` needs no network namespace.
    """
    if mode == "off":
        return ()
    needed = (*_PROTECT, "network_namespace") if mode == "strict" and not network else _PROTECT
    return tuple(name for name in needed if name not in active)


def require(node_id: str, name: str, pricer: Pricer, sandbox: SandboxState) -> None:
    """Check that an attempt may run in a sandbox.

    Args:
        node_id: the node.
        name: the pricer's name.
        pricer: the pricer.
        sandbox: what the attempt would run in.

    Raises:
        CannotRunError: the pricer has `sandbox_required`, and the sandbox lacks a mechanism; or it has a `sandbox_user`
            as which it cannot run. Like a missing program, it does not count against the node: other pricers may run
            there, and the job may run on other nodes.
    """
    if pricer.sandbox_mode != "off" and pricer.sandbox_user is not None and "separate_user" not in sandbox.active:
        raise CannotRunError(
            Outcome.CANNOT_START,
            f"node {node_id} does not run pricer {name!r} as user {pricer.sandbox_user!r} (sandbox_user). "
            f"{_REMEDIES['separate_user']}",
        )
    if pricer.sandbox_required:
        lacks = missing(pricer.sandbox_mode, sandbox.active, network=pricer.network)
        if lacks:
            raise CannotRunError(Outcome.CANNOT_START, refusal(node_id, name, pricer.sandbox_mode, lacks))


def refusal(node_id: str, name: str, mode: str, lacks: Collection[str]) -> str:
    """The error of an attempt that does not run because its sandbox lacks mechanisms."""
    remedies = dict.fromkeys(_REMEDIES[name] for name in lacks if name in _REMEDIES)
    return (
        f"node {node_id} does not run pricer {name!r}, which has sandbox_required: its sandbox ({mode}) lacks "
        f"{', '.join(lacks)} there. "
        + "".join(f"{each}. " for each in remedies)
        + "Or set sandbox_required: false, so that jobs run with the mechanisms that a node has"
    )
