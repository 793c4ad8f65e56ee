"""Starts an agent's Python inside a user namespace, in which an agent of an ordinary user may set up sandboxes.

A process can only enter a user namespace while it has one thread, which Ray's worker has not once an actor runs in it.
Ray therefore starts this program, which enters the namespace and then executes Python with Ray's arguments:
`python -m raygrid.node.sandbox.entry <directory> <arguments of Python>`.

The agents of one grid on a machine share one user namespace, because a process in one cannot inspect the processes in
another, and one agent may have to choose among the pricers of all. Root needs no user namespace. If there can be none,
the agent starts without, and its sandboxes lack what needs it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from raygrid.system import capabilities, namespaces

FILE_NAME = "user_namespace"
_NEEDED = (capabilities.SETPCAP, capabilities.NET_ADMIN, capabilities.SYS_CHROOT, capabilities.SYS_ADMIN)


def main() -> None:
    """Enter the user namespace, and execute Python."""
    directory, *arguments = sys.argv[1:]
    if os.geteuid() != 0:
        try:
            enter(directory)
        except OSError as error:
            print(f"this agent runs without a user namespace: {error}", file=sys.stderr, flush=True)
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606  # no shell is wanted


def enter(directory: str) -> None:
    """Enter the user namespace that the agents with this directory share, or make one.

    Raises:
        OSError: the kernel refuses it.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    with open(os.path.join(directory, FILE_NAME), "a+", opener=_private) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        others = list(_members(file))
        if not any(_join(pid) for pid, _ in others):
            _make()
        namespaces.unshare(namespaces.NEW_MOUNTS)
        namespaces.keep_mounts_inside()
        capabilities.keep_over_exec(_NEEDED)
        own = (os.getpid(), os.stat("/proc/self/ns/user").st_ino)
        file.seek(0)
        file.truncate()
        file.writelines(f"{pid} {namespace}\n" for pid, namespace in [*others, own])


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _members(file: TextIO) -> Iterator[tuple[int, int]]:
    """The agents in the namespace that still run: the pid, and the number of the namespace."""
    file.seek(0)
    mine = os.stat("/proc/self/ns/user").st_ino
    for line in file:
        with contextlib.suppress(OSError, ValueError):
            pid, namespace = map(int, line.split())
            if namespace != mine and os.stat(f"/proc/{pid}/ns/user").st_ino == namespace:
                yield pid, namespace


def _join(pid: int) -> bool:
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


def _make() -> None:
    uid, gid = os.geteuid(), os.getegid()
    namespaces.unshare(namespaces.NEW_USER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


if __name__ == "__main__":
    main()
