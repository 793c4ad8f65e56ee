"""How many connections a parent has room for among the files that its process may open.

A connection is an open file, and a process may often open 1,024 only. Where that is reached, the event loop cannot
accept what waits, and logs thousands of errors, again and again, and the parent answers nothing any more.
"""

from __future__ import annotations

import contextlib
import resource
from dataclasses import dataclass

BACKLOG = 2_048
OTHER_FILES = 256  # the parent's own: job store, blobs, Ray
FEWEST = 16


@dataclass(frozen=True, slots=True)
class Room:
    """What a parent may take: connections, and as many at once that wait to be accepted."""

    connections: int
    backlog: int


def room_in(files: int, most: int, spare: int) -> Room:
    """The room that so many open files give.

    Args:
        files: files that the process may open.
        most: connections that are wanted at most.
        spare: connections beyond these, for a moment, for telling their clients.
    """
    # All that wait may be accepted in one go, before the first of them can be refused.
    backlog = max(FEWEST, min(BACKLOG, files // 4))
    return Room(max(FEWEST, min(most, files - backlog - spare - OTHER_FILES)), backlog)


def make_room(most: int, spare: int) -> Room:
    """Let this process open as many files as connections are wanted, as far as it may; gives the room there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + spare + BACKLOG + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return room_in(soft if soft != resource.RLIM_INFINITY else wanted, most, spare)
