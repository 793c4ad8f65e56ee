"""Finds out which mechanisms of the kernel an agent can use for sandboxes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from raygrid.node.sandbox.threads import RestrictedThreads
from raygrid.system import landlock, namespaces, seccomp


@dataclass(frozen=True, slots=True)
class Mechanisms:
    """What the kernel lets this process do.

    Attributes:
        is_root: whether pricers run as root.
        in_user_namespace: whether this process is in a user namespace of its own.
        mounts, network, ipc: whether threads can have such a namespace of their own.
        landlock: the version of Landlock; 0 without it.
        seccomp: whether system calls can be filtered.
        why_no_mounts: the kernel's reason against a mount namespace.
    """

    is_root: bool = False
    in_user_namespace: bool = False
    mounts: bool = False
    network: bool = False
    ipc: bool = False
    landlock: int = 0
    seccomp: bool = False
    why_no_mounts: str = ""

    @property
    def users(self) -> bool:
        """Whether pricers can run as another user than this process."""
        return self.is_root and self.mounts


def probe() -> Mechanisms:
    """Try each mechanism, in threads that end."""
    why = _why_not(_unshare_mounts)
    return Mechanisms(
        is_root=os.geteuid() == 0,
        in_user_namespace=_is_in_user_namespace(),
        mounts=why is None,
        network=_why_not(lambda: namespaces.unshare(namespaces.NEW_NETWORK)) is None,
        ipc=_why_not(lambda: namespaces.unshare(namespaces.NEW_IPC)) is None,
        landlock=landlock.abi(),
        seccomp=seccomp.available() and _why_not(_filter) is None,
        why_no_mounts=why or "",
    )


def _why_not(attempt: Callable[[], None]) -> str | None:
    """Why an attempt fails in a thread of its own; None if it succeeds."""
    try:
        RestrictedThreads(attempt, lambda: None).close()
    except OSError as error:
        return str(error)
    return None


def _unshare_mounts() -> None:
    namespaces.unshare(namespaces.NEW_MOUNTS)
    namespaces.keep_mounts_inside()


def _filter() -> None:
    seccomp.install(seccomp.filter_program())


def _is_in_user_namespace() -> bool:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]
