"""Puts a supervisor of an ordinary user into a user namespace, in which agents may set up sandboxes.

Only a process with one thread can enter a user namespace, so the supervisor enters it before anything else. All that it
starts is in the namespace as well: Ray, and the agents, which have the needed capabilities from their start. So an
agent that follows a dead one starts as fast as any other process of Ray, and agents can inspect each other's pricers.

A process in one user namespace cannot inspect processes in another. If processes of an earlier life of the supervisor
still run, which the agents must find and end, it joins their namespace. Root needs no user namespace.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from raygrid.system import capabilities, namespaces

FILE_NAME = "user_namespace"
"""In the supervisor's directory, with the number of its namespace."""

_NEEDED = (capabilities.SETPCAP, capabilities.NET_ADMIN, capabilities.SYS_CHROOT, capabilities.SYS_ADMIN)
_OWN = "/proc/self/ns/user"


def enter(directory: Path) -> str | None:
    """Enter the user namespace of the supervisor with this directory, or make one, unless this is root.

    Call it before the process is protected from tracing, which makes its files in /proc those of root. Returns why
    there can be no sandbox with a mount namespace, after which the process is as it was; None if there can be one.
    """
    if os.geteuid() == 0:
        return None
    try:
        if not any(_join(pid) for pid in _processes_in(_recorded(directory))):
            _try_in_a_child()
            _make()
        capabilities.keep_over_exec(_NEEDED)
    except OSError as error:
        return f"there is no user namespace for sandboxes: {error}"
    with contextlib.suppress(OSError):  # then a next life of this supervisor has another namespace
        (directory / FILE_NAME).write_text(f"{os.stat(_OWN).st_ino}\n", encoding="ascii")
    return None


def _recorded(directory: Path) -> int | None:
    """The number of the namespace of the supervisor's last life."""
    try:
        return int((directory / FILE_NAME).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _processes_in(namespace: int | None) -> Iterator[int]:
    """The processes in a namespace that maps this user to itself, as those of `_make` do."""
    if namespace is None or namespace == os.stat(_OWN).st_ino:
        return
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}/ns/user").st_ino == namespace and _mapping(name) == _own_mapping():
                yield int(name)


def _mapping(pid: str) -> list[str]:
    with open(f"/proc/{pid}/uid_map", encoding="ascii") as file:
        return file.read().split()


def _own_mapping() -> list[str]:
    return [str(os.geteuid()), str(os.geteuid()), "1"]


def _join(pid: int) -> bool:
    """Enter the user namespace of a process; whether that succeeded."""
    try:
        descriptor = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        namespaces.enter_namespace(descriptor, namespaces.NEW_USER)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _try_in_a_child() -> None:
    """Try whether a user namespace is of use: Ubuntu 24.04 gives ordinary users one in which nothing is allowed.

    Raises:
        OSError: it is not.
    """
    child = os.fork()
    if child == 0:
        code = 255
        try:
            _make()
            namespaces.unshare(namespaces.NEW_MOUNTS)
            namespaces.keep_mounts_inside()
            capabilities.keep_over_exec(_NEEDED)
            code = 0
        except OSError as error:
            code = error.errno or code
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, os.strerror(code), "user and mount namespace")


def _make() -> None:
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.NEW_USER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
