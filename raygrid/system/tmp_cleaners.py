"""Protects Ray's temporary files from the cleaners of /tmp, for grids that run for weeks.

Debian 13, Fedora and RHEL delete files older than 10 days from /tmp. Without the files of Ray's session, a node cannot
restart an actor. systemd-tmpfiles skips a directory, with everything below it, that has a shared flock(2)
(tmpfiles.d(5)); filelock does not offer such locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path


def lock(directory: Path) -> int | None:
    """Lock a directory until this process ends; returns the descriptor, or None if there is no such directory.

    The lock is shared, so several grids can use one directory.
    """
    with contextlib.suppress(OSError):
        held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(held)
            raise
        return held
    return None
