"""Lock files: one process of a machine holds each, and the kernel releases the lock when that process ends.

The locks are those of flock(2), taken with filelock. Programs that the holder starts do not inherit the descriptor, so
a pricer cannot keep a lock after its agent's death. filelock has no shared locks: `node/helpers/claims.py` and
`system/tmp_cleaners.py` call flock themselves.

A supervisor holds the lock of its directory while it runs, and writes its pid and start time into the file. The file of
a grid (`grid_file.py`) exists only while jobs can be submitted; the lock also shows a grid that is starting or
stopping, or whose grid file is damaged.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from raygrid.errors import SettingsError
from raygrid.system.proc import Life, start_time

if TYPE_CHECKING:
    from filelock import BaseFileLock

NAME = "lock"
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
"""Errors of file systems that have no locks."""

_POLL_S = 0.01


def try_lock(path: Path, patience_s: float = 0.0) -> BaseFileLock | None:
    """Lock a file, created if missing; None if another process still holds the lock after `patience_s`.

    The lock ends with `release` or with this process; the file stays.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - 7 ms at the start of clients, which never lock

    lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience_s, poll_interval=_POLL_S)
    except Timeout:
        return None
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file. The check does not disturb other checks or a waiting `try_lock`.

    Raises:
        OSError: the file cannot be opened, other than because it is missing.
    """
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def only_one(directory: Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a supervisor's directory: two supervisors would share job stores and work directories.

    Raises:
        SettingsError: another process still holds it after `patience_s`.
    """
    path = directory / NAME
    lock = try_lock(path, patience_s)
    if lock is None:
        raise SettingsError(f"another grid already uses {directory}; stop it or choose another --name")
    try:
        path.write_text(json.dumps([os.getpid(), start_time(os.getpid())]), encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            os.truncate(path, 0)  # this process may go on without the lock
        lock.release()


def holder(directory: Path) -> Life | None:
    """The running supervisor that holds the lock of a directory; None if there is none."""
    try:
        pid, started = json.loads((directory / NAME).read_text(encoding="utf-8"))
        life = Life(int(pid), int(started))
    except (OSError, ValueError, TypeError):
        return None
    return None if life.is_over else life
