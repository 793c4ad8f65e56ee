"""Marks in the environment of pricers, relatives of processes, tracing, and signals to process groups. Linux only.

A pricer leads its own session. A descendant that leaves the session is found by the environment mark, which pricers
pass on to their children. The agent is a child subreaper, so orphaned descendants become its children.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

from raygrid.system import system_calls
from raygrid.system.proc import environment_of

MARK = "RAYGRID_ATTEMPT"
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_WNOTHREAD, _WALL = 0x2000_0000, 0x4000_0000  # see waitpid(2)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process, so that it can find and reap them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def die_with_parent() -> None:
    """Ask the kernel to send this process SIGTERM when its parent dies; one system call, no allocation."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def forbid_tracing() -> None:
    """Forbid other processes of this user to trace this one, and to read its memory, environment and open files.

    For processes that hold secrets: tiers and supervisors. Programs that this process starts are not concerned. Its
    files in /proc belong to root from now on, so that it cannot read its own environment there; and it dumps no core.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def mark_in(environment: bytes) -> str | None:
    """The raygrid mark in an environment; None without one."""
    prefix = MARK.encode() + b"="
    for entry in environment.split(b"\0"):
        if entry.startswith(prefix):
            return os.fsdecode(entry[len(prefix) :])
    return None


def mark_of(pid: int) -> str | None:
    """The raygrid mark in a process's environment; None without one, or if it cannot be read."""
    environment = environment_of(pid)
    return None if environment is None else mark_in(environment)


def own_thread_has_children() -> bool:
    """Whether the calling thread has any child."""
    return system_calls.has_child(os.WEXITED | os.WNOHANG | os.WNOWAIT | _WNOTHREAD | _WALL)


def has_exited(pid: int) -> bool:
    """Whether a child of this process has ended; the child is not reaped."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:
        return False


def ancestor(pid: int, parents: dict[int, int], wanted: set[int]) -> int:
    """The nearest of the wanted processes that a process descends from; 0 if there is none."""
    for _ in range(len(parents)):
        pid = parents.get(pid, 0)
        if pid == 0 or pid in wanted:
            return pid
    return 0  # a cycle: pids were reused while the table was read


def signal_group(group: int, number: signal.Signals) -> bool:
    """Signal a process group; False if it has no members left."""
    try:
        with contextlib.suppress(PermissionError):
            os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
