"""Keeps Ray's temporary files from being cleaned away under a grid that runs for weeks.

Debian 13, Fedora and RHEL remove what is older than 10 days from /tmp, file by file: Ray's session goes, and a node
that restarts an actor then fails. systemd-tmpfiles skips a locked directory and all below it (tmpfiles.d(5)).
That lock is a shared flock(2) on the directory itself, which filelock does not offer.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path


def lock(directory: Path) -> int | None:
    """Lock a directory for the life of this process; gives its descriptor, None where there is no such directory.

    The lock is shared: of several grids that use one directory, each keeps it.
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


def ray_directory(environment: Mapping[str, str]) -> Path:
    """Where Ray keeps its session on a machine of a cluster, started in this environment."""
    return Path(environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp") / "ray"  # noqa: S108 - Ray's choice
