"""The marks of pricers' processes, the children of this process, and signals to process groups.

A pricer leads a session of its own. Its children usually stay in that session; one that leaves it is found by the
environment mark that every pricer gets and passes on. The agent makes itself a child subreaper, so that an orphaned
descendant becomes its child. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import signal

from raygrid.system import system_calls
from raygrid.system.proc import environment_of

MARK = "RAYGRID_ATTEMPT"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CHILDREN = 4_096
_WNOTHREAD, _WALL = 0x2000_0000, 0x4000_0000  # see waitpid(2)


def become_subreaper() -> None:
    """Let orphaned descendants become this process's children, where they can be found and reaped."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies; makes one system call and allocates nothing."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def mark_in(environment: bytes) -> str | None:
    """The raygrid mark in an environment, if it has one."""
    prefix = MARK.encode() + b"="
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return os.fsdecode(entry[len(prefix) :])
    return None


def mark_of(pid: int) -> str | None:
    """The raygrid mark in a process's environment, if it has one that we may read."""
    environment = environment_of(pid)
    return None if environment is None else mark_in(environment)


class ChildrenOf:
    """The children of one thread of this process, read again and again. The owner closes it.

    Those are the children that it has spawned and those that they gave it by `clone(CLONE_PARENT)`; and for the main
    thread, whose number is the process's, all orphans that the process was given.
    """

    def __init__(self, thread: int) -> None:
        try:
            self._file = os.open(f"/proc/self/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def now(self) -> set[int] | None:
        """Their pids; None if they cannot be read."""
        try:
            listed = os.pread(self._file, _CHILDREN, 0)
        except OSError:
            return None
        return set(map(int, listed.split())) if len(listed) < _CHILDREN else None

    def close(self) -> None:
        """Read no more."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def own_thread_has_children() -> bool:
    """Whether the calling thread has any child, of whatever kind."""
    return system_calls.has_child(os.WEXITED | os.WNOHANG | os.WNOWAIT | _WNOTHREAD | _WALL)


def has_exited(pid: int) -> bool:
    """Whether a child of this process has ended; it is not reaped by this."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return False


def ancestor(pid: int, parents: dict[int, int], wanted: set[int]) -> int:
    """The nearest of the wanted processes that a process descends from; 0 where there is none."""
    for _ in range(len(parents)):
        pid = parents.get(pid, 0)
        if pid == 0 or pid in wanted:
            return pid
    return 0  # the table was read while processes came and went


def signal_group(group: int, number: signal.Signals) -> bool:
    """Signal a process group; False where it has no members left."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
