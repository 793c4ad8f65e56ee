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
from dataclasses import dataclass
from pathlib import Path

from raygrid.errors import SettingsError

NAME = "lock"


@dataclass(frozen=True, slots=True)
class Life:
    """A process, told from a later one of the same pid by its start time in clock ticks since boot."""

    pid: int
    started: int

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return start_time(self.pid) != self.started


def start_time(pid: int) -> int | None:
    """A process's start time in clock ticks since boot; None where it does not live (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])


def life_of(pid: int) -> Life | None:
    """The process that has this pid now, if one has."""
    started = start_time(pid)
    return None if started is None else Life(pid, started)


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
