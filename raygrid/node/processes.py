"""Process trees: watching their limits, killing them whole, and finding those that outlived their time.

A pricer leads a session of its own. Its children usually stay in that session; one that leaves it is found by the
environment mark that every pricer gets and passes on. The agent makes itself a child subreaper, so that an orphaned
descendant becomes its child. Linux only: everything is read from /proc.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from raygrid.node import at_once

MARK = "RAYGRID_ATTEMPT"
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = os.sysconf("SC_PAGE_SIZE")
_ENDED = (b"Z", b"X", b"x")
_CHILDREN = 4_096
_WNOTHREAD, _WALL = 0x2000_0000, 0x4000_0000  # see waitpid(2)


def become_subreaper() -> None:
    """Let orphaned descendants become this process's children, where they can be found and reaped."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table."""

    pid: int
    parent: int
    session: int
    rss_bytes: int
    is_zombie: bool
    group: int
    started: int  # in clock ticks since boot: with the pid it tells one process from a later one


def process_of(pid: int) -> Process | None:
    """One process of this machine (or container); None where there is none of that pid."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command name, in parentheses, may contain anything; the fields follow the last one.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        rss_bytes=int(fields[21]) * _PAGE,
        # The first thread may have ended before others of its process; then the process is still to be killed.
        is_zombie=fields[0] in _ENDED and int(fields[17]) <= 1,
        group=int(fields[2]),
        started=int(fields[19]),
    )


def process_table() -> Iterator[Process]:
    """All processes of this machine (or container) that can be read."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := process_of(int(name))) is not None:
            yield process


def environment_of(pid: int) -> bytes | None:
    """The environment that a process was started with; None where we may not read it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read()
    except ProcessLookupError:  # its first thread has ended; others may run
        return _environment_of_other_threads(pid)
    except OSError:
        return None


def _environment_of_other_threads(pid: int) -> bytes | None:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return None
    for thread in threads:
        if thread != str(pid):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/environ", "rb") as file:
                return file.read()
    return None


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
        """Their pids; None where that cannot be told."""
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
    return at_once.has_child(os.WEXITED | os.WNOHANG | os.WNOWAIT | _WNOTHREAD | _WALL)


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
