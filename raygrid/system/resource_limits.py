"""Sets the kernel's resource limits (`setrlimit(2)`) of a process that was just spawned; those of this process stay.

The limits of the grid itself must not become smaller, and resource limits belong to a whole process, so that they
cannot be set in the thread that spawns. A process that the new one starts within its first microseconds keeps the
limits of this process.
"""

from __future__ import annotations

import contextlib
import resource
from functools import lru_cache

MOST_FILES = 65_536
"""Most descriptors that a pricer's process may open, if this process may open more."""
_KEPT_SHARE = 8  # one of so many processes of the user stays free for the grid


def apply(pid: int) -> None:
    """Limit a new child of this process; nothing happens if it has ended, or has become another user's.

    - No core files: they can be as large as the process, and contain what it knows.
    - At most `MOST_FILES` open files. The usual limit (soft) stays as it is, unless it is higher.
    - If the number of the user's processes is limited, this process may start more than its pricers: a pricer that
      reaches the limit must not keep the grid from starting processes and threads. Does not hold for root.

    The limits are derived from those of this process at the first call.
    """
    for kind, limits in _lowered():
        with contextlib.suppress(OSError, ValueError):  # ValueError: it has lowered its own limits meanwhile
            resource.prlimit(pid, kind, limits)


@lru_cache(maxsize=1)
def _lowered() -> tuple[tuple[int, tuple[int, int]], ...]:
    """The limits that a child must not inherit: the kind, and the soft and hard limit that it gets instead."""
    most = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: MOST_FILES}
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if processes != resource.RLIM_INFINITY:
        most[resource.RLIMIT_NPROC] = processes - processes // _KEPT_SHARE
    own = {kind: resource.getrlimit(kind) for kind in most}
    return tuple((kind, at_most(own[kind], most[kind])) for kind in most if own[kind] != at_most(own[kind], most[kind]))


def at_most(limits: tuple[int, int], most: int) -> tuple[int, int]:
    """A soft and a hard limit, lowered to a maximum where they exceed it."""
    soft, hard = (most if limit == resource.RLIM_INFINITY else min(limit, most) for limit in limits)
    return soft, hard
