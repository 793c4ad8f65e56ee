"""The lock of a grid's directory: one supervisor at a time, and who it is, from its first moment to its last.

The file of the grid (`grid_file.py`) is there only while jobs can be submitted; the lock also tells of a grid that
starts or stops just now, or whose file was damaged.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from raygrid.errors import SettingsError
from raygrid.system.proc import Life, start_time

NAME = "lock"


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the lock of a grid's directory: two supervisors would share a job store and work directories.

    Raises:
        SettingsError: another one holds it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    with open(os.open(directory / NAME, flags, 0o600), "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingsError(f"another grid already uses {directory}; stop it or choose another --name") from None
        lock.truncate(0)
        json.dump([os.getpid(), start_time(os.getpid())], lock)
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)  # this process may go on without it


def holder(directory: Path) -> Life | None:
    """The supervisor that holds the lock of a grid's directory, if one lives."""
    try:
        pid, started = json.loads((directory / NAME).read_text(encoding="utf-8"))
        life = Life(int(pid), int(started))
    except (OSError, ValueError, TypeError):
        return None
    return None if life.is_over else life
