"""What keeps pricers from harming the grid, as a value that travels from nodes to clients; see `node/sandbox/`."""

from __future__ import annotations

from typing import NamedTuple

MECHANISMS = (
    "user_namespace",
    "mount_namespace",
    "network_namespace",
    "ipc_namespace",
    "landlock",
    "seccomp",
    "no_new_privs",
    "separate_user",
)
"""The names of all mechanisms of which a sandbox may consist."""


class SandboxState(NamedTuple):
    """What keeps pricers from harming the grid on a node, or kept one attempt.

    Attributes:
        mode: `protect`, `strict` or `off`.
        active: the mechanisms that are active, such as `landlock`; see `MECHANISMS`.
        open: what stays open, as sentences.
    """

    mode: str = "off"
    active: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


NO_SANDBOX = SandboxState(open=("there is no sandbox: programs can do what the grid's user can",))
