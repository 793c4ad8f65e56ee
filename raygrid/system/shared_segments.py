"""System V shared memory: the segments of an IPC namespace, which processes made them, and their removal.

A segment lives until it is removed, whether or not a process has it attached. Format: proc_sysvipc(5).
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from raygrid.system.ipc_tables import IpcTable
from raygrid.system.system_calls import checked

_ID, _CREATOR, _LAST_USER, _ATTACHED, _CHANGED_AT, _RESIDENT, _SWAPPED = 1, 4, 5, 6, 13, 14, 15
_REMOVE = 0  # IPC_RMID

_libc = ctypes.CDLL(None, use_errno=True)


class Segment(NamedTuple):
    """One segment.

    Attributes:
        id: its number; a later segment has another one.
        creator, last_user: the processes that made it, and that attached or detached it last; they may have ended.
        attached: how many attachments it has.
        changed_at: when it was made, or its permissions were changed, in seconds since the epoch.
        used: its memory, bytes, including what is swapped out.
    """

    id: int
    creator: int
    last_user: int
    attached: int
    changed_at: int
    used: int


class SegmentTable:
    """Reads repeatedly the segments of the IPC namespace of the thread that makes this; `close` ends it."""

    def __init__(self) -> None:
        self._table = IpcTable("shm")

    def now(self) -> list[Segment]:
        """All of them; none if they cannot be read."""
        return [_segment(row) for row in self._table.rows()]

    def close(self) -> None:
        """Close the table."""
        self._table.close()


def remove_segment(segment: int) -> None:
    """Remove a segment of the calling thread's IPC namespace; the kernel keeps it until no process has it attached.

    Raises:
        OSError: there is none, or it is another user's.
    """
    checked(_libc.shmctl(segment, _REMOVE, None), "IPC_RMID")


def _segment(fields: list[bytes]) -> Segment:
    return Segment(
        id=int(fields[_ID]),
        creator=int(fields[_CREATOR]),
        last_user=int(fields[_LAST_USER]),
        attached=int(fields[_ATTACHED]),
        changed_at=int(fields[_CHANGED_AT]),
        used=int(fields[_RESIDENT]) + int(fields[_SWAPPED]),
    )
