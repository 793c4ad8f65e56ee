"""Plans a sandbox: what it hides and shows, which files may be used, and what stays open. Pure, but for links.

`protect` hides what belongs to the grid and to other jobs, and leaves the rest of the machine as it is. `strict` shows
the system, the program and what the pricer's settings name, and lets it write only to its own directories.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from raygrid.core.sandbox_state import SandboxState
from raygrid.node.sandbox.mechanisms import Mechanisms
from raygrid.node.sandbox.programs import ProgramSearch
from raygrid.node.sandbox.view import SHARED_MEMORY, View, is_below
from raygrid.settings.pricer import Pricer
from raygrid.system.landlock import FILES_ABI, SIGNALS_ABI

# What `strict` hides besides the grid's own: files of people, and sockets of the machine's services.
PRIVATE = ("/home", "/root", "/run", "/tmp", "/var/tmp", "/media", "/mnt", "/srv")  # noqa: S108  # hidden, not used
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/nix", "/proc", "/sys", "/dev")
_RESOLVER = ("/run/systemd/resolve", "/run/resolvconf", "/run/nscd")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")


@dataclass(frozen=True, slots=True)
class FileRules:
    """The only files that a pricer may use: what it may read and execute, and what it may also write."""

    read: tuple[str, ...]
    write: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SandboxPlan:
    """How to set up a sandbox.

    Attributes:
        view: what it hides and shows; None without a mount namespace.
        files: the files that may be used; None for all.
        network: whether the machine's network can be used.
        own_network, own_ipc: whether it has such a namespace of its own.
        filters: whether system calls are filtered.
        domains: whether its processes are in a Landlock domain.
        state: what is active, for people.
        user: the user as which its processes run; None for the agent's own.
    """

    view: View | None
    files: FileRules | None
    network: bool
    own_network: bool
    own_ipc: bool
    filters: bool
    domains: bool
    state: SandboxState = field(compare=False)
    user: str | None = None


def plan(
    pricer: Pricer, mechanisms: Mechanisms, hidden: Sequence[str], read_only: Sequence[str], own: str, captures: str
) -> SandboxPlan:
    """Plan a sandbox for a pricer whose mode is not `off`.

    Args:
        pricer: its settings.
        mechanisms: what the kernel offers.
        hidden: the paths of the grid's own files.
        read_only: paths that no pricer may change.
        own: the sandbox's own directory.
        captures: the directory of the files that capture what pricers print; a program may open its own again.
    """
    is_strict = pricer.sandbox_mode == "strict"
    writable = (own, *map(os.path.expanduser, pricer.write if is_strict else ()))
    network = pricer.network if is_strict else True
    files = None
    shown: tuple[str, ...] = writable
    if is_strict:
        search = ProgramSearch(os.environ, os.path.expanduser("~"), PRIVATE)
        programs = search.files_of(pricer.command, pricer.env)
        readable = (*programs, *map(os.path.expanduser, pricer.read), *(_RESOLVER if network else ()))
        shown = (*shown, *readable)
        hidden = (*hidden, *PRIVATE)
        if mechanisms.landlock >= FILES_ABI:
            files = FileRules((*SYSTEM, *readable), (*writable, *DEVICES, captures))
    own_memory = not is_below(os.path.realpath(own), SHARED_MEMORY)  # else it would hide the own directory
    user = pricer.sandbox_user if mechanisms.users else None
    mapped = own if user is not None else ""
    return SandboxPlan(
        View(hidden, shown, read_only, own_memory, mapped, writable if is_strict else None)
        if mechanisms.mounts
        else None,
        files,
        network,
        not network and mechanisms.network,
        mechanisms.ipc,
        mechanisms.seccomp,
        mechanisms.landlock > 0,
        SandboxState(
            pricer.sandbox_mode,
            tuple(_active(mechanisms, network, user)),
            tuple(_open(mechanisms, is_strict, network, user)),
        ),
        user,
    )


def _active(mechanisms: Mechanisms, network: bool, user: str | None) -> list[str]:
    there = {
        "user_namespace": mechanisms.in_user_namespace,
        "mount_namespace": mechanisms.mounts,
        "network_namespace": not network and mechanisms.network,
        "ipc_namespace": mechanisms.ipc,
        "landlock": mechanisms.landlock > 0,
        "seccomp": mechanisms.seccomp,
        "no_new_privs": True,
        "separate_user": user is not None,
    }
    return [name for name, is_there in there.items() if is_there]


def _open(mechanisms: Mechanisms, is_strict: bool, network: bool, user: str | None) -> list[str]:
    """What stays open although the mode would close it."""
    found = []
    if not mechanisms.mounts:
        found.append(
            "files and sockets of the grid and of other jobs can be used, as far as permissions allow: there "
            f"is no mount namespace ({mechanisms.why_no_mounts})"
        )
        if not (is_strict and mechanisms.landlock >= FILES_ABI):
            found.append(
                "priority and out-of-memory score of processes of the same user can be changed through /proc: there is "
                "no mount namespace"
            )
    if not mechanisms.landlock:
        found.append("processes of the same user can be signalled and traced: the kernel has no Landlock")
    elif mechanisms.landlock < SIGNALS_ABI:
        found.append(
            f"processes of the same user can be signalled: Landlock has ABI {mechanisms.landlock}, and scoping signals "
            f"needs ABI {SIGNALS_ABI} (Linux 6.12)"
        )
    if not mechanisms.seccomp:
        found.append("system calls are not filtered: the kernel has no seccomp")
    if mechanisms.is_root and user is None:
        found.append(
            f"programs run as root: they can {'read' if is_strict else 'change'} the system's files; set "
            "`sandbox_user`, or run the grid as another user"
        )
    if is_strict and mechanisms.landlock < FILES_ABI:
        found.append("files outside of home and temporary directories can be read: Landlock is too old")
    if is_strict and not mechanisms.mounts:
        found.append("mode, owner and times of files of the same user can be changed: there is no mount namespace")
    if not network and not mechanisms.network:
        found.append("the network can be reached: there is no network namespace")
    return found
