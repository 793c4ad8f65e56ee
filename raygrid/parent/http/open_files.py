"""Computes how many connections a parent can accept from the number of files that its process may open.

A connection is an open file, and the limit of a process is often 1,024. At the limit, the event loop cannot accept
connections, logs thousands of errors, and the parent answers no requests.
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
    """The maximum numbers of connections and of connections that wait to be accepted."""

    connections: int
    backlog: int


def room_in(files: int, most: int, spare: int) -> Room:
    """The room within a number of open files.

    At most `most` connections are served, and `spare` further ones get an answer that the parent is full.
    """
    # All waiting connections may be accepted before the first of them is refused.
    backlog = max(FEWEST, min(BACKLOG, files // 4))
    return Room(max(FEWEST, min(most, files - backlog - spare - OTHER_FILES)), backlog)


def make_room(most: int, spare: int) -> Room:
    """Raise this process's limit of open files as far as needed and allowed; returns the room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + spare + BACKLOG + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return room_in(soft if soft != resource.RLIM_INFINITY else wanted, most, spare)
