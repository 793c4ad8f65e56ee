"""Lock files: at most one process of a machine holds each, and a lock ends with its process, however that ends.

The locks are those of flock(2), taken with filelock. A file descriptor of a lock is not inherited by programs that the
holder starts, so that no pricer can keep a lock after its agent's death. filelock has no shared locks on a file:
`node/helpers/claims.py` and `system/tmp_cleaners.py` call flock themselves.

A supervisor holds the lock of its directory from its first moment to its last, and writes its process into the file.
The file of a grid (`grid_file.py`) exists only while jobs can be submitted; the lock also shows a grid that is being
started or stopped, or whose file was damaged.
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
"""Errors by which a file system refuses every lock."""

_POLL_S = 0.01


def try_lock(path: Path, patience_s: float = 0.0) -> BaseFileLock | None:
    """Lock a file, which is made if it is missing; None if another holder does not release it within the patience.

    `release` of what is returned, or the end of this process, ends the lock. The file stays.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - costs clients, which never lock, 7 ms of their start

    lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience_s, poll_interval=_POLL_S)
    except Timeout:
        return None
    return lock


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of a file. Looking does not disturb others that look, nor a patient holder.

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
        SettingsError: another process holds it, and goes on doing so for the patience.
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
            os.truncate(path, 0)  # this process may live on without the lock
        lock.release()


def holder(directory: Path) -> Life | None:
    """The supervisor that holds the lock of a directory; None if none lives."""
    try:
        pid, started = json.loads((directory / NAME).read_text(encoding="utf-8"))
        life = Life(int(pid), int(started))
    except (OSError, ValueError, TypeError):
        return None
    return None if life.is_over else life
