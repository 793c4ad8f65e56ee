"""Directories for temporary files (`TMPDIR`): one for each attempt, removed with it, used again while it is untouched.

Most pricers never use theirs, so that making one for each would be a waste. An untouched directory serves again. It is
recognised by the times that it had when it was made: any file put into it changes them, even if it is removed again.
Paths are short, because the path of a socket in such a directory must fit into 107 bytes.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections import deque
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path

from raygrid.node.attempt.remaining_writers import RemainingWriters
from raygrid.node.attempt.safe_paths import open_directory, remove

VARIABLES = ("TMPDIR", "TMP", "TEMP")  # POSIX, and what Windows programs and others look for
_IDENTITY = 3  # the first parts of a state: which directory it is, and its mode
_EARLY_NS = 10**9  # a modification time that no file put into a directory gives it


@dataclass(frozen=True, slots=True)
class TemporaryDirectory:
    """A directory for the temporary files of one attempt.

    Attributes:
        where: its path.
        name: its name in the directory `within`, of which that is an open descriptor.
        within: see there.
        state: recognises the directory that was made, while it is untouched.
    """

    where: str
    name: str
    within: int
    state: tuple[int, ...]

    def variables(self, chosen: Container[str]) -> dict[str, str]:
        """The variables that name it, without those that the pricer's settings set."""
        return {name: self.where for name in VARIABLES if name not in chosen}


class TemporaryDirectories:
    """The temporary directories of one life of an agent. Safe to call from many threads."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self._descriptor = -1
        self._serial = itertools.count()
        self._free: deque[TemporaryDirectory] = deque()
        self._used_by_warm: deque[TemporaryDirectory] = deque()  # a warm process may still write there

    def open(self) -> None:
        """Open the directory, which must exist."""
        self._descriptor = open_directory(self._place)

    def close(self) -> None:
        """Close the directory; nothing is kept any more."""
        self._free.clear()
        self._used_by_warm.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, job_directory: str, within: int) -> TemporaryDirectory:
        """An empty directory.

        Args:
            job_directory: its path; where a pricer removed this pool's directory, a directory beside it is made.
            within: descriptor of the directory around the job directory.

        Raises:
            OSError: the disk does not take it.
        """
        for spares in (self._free, self._used_by_warm):  # a job may have removed or changed directories of others
            with contextlib.suppress(IndexError):
                while not _is_untouched(spare := spares.popleft()):
                    self._remove(spare)
                return spare
        place, _, name = job_directory.rpartition("/")
        made = _made(self._place, str(next(self._serial)), self._descriptor) or _made(place, f"{name}@tmp", within)
        if made is None:
            raise OSError(errno.ELOOP, "something was put in the place of the node's directories", job_directory)
        return made

    def give_back(self, temporary: TemporaryDirectory, writers: RemainingWriters) -> None:
        """Take a directory back once its attempt is over; it is removed unless it can serve again."""
        spare: TemporaryDirectory | None = None
        if writers is not RemainingWriters.UNKNOWN and temporary.within == self._descriptor:
            spare = temporary if _is_untouched(temporary) else _cleared(temporary)
        if spare is None:
            self._remove(temporary)
        else:
            (self._free if writers is RemainingWriters.NONE else self._used_by_warm).append(spare)

    @staticmethod
    def _remove(temporary: TemporaryDirectory) -> None:
        with contextlib.suppress(OSError):  # one that a daemon still writes to is removed when the agent ends
            remove(temporary.name, temporary.within)


def _made(place: str, name: str, within: int) -> TemporaryDirectory | None:
    """A new directory; None where a pricer removed or replaced the directory around it."""
    where = f"{place}/{name}"
    try:
        try:
            os.mkdir(name, 0o700, dir_fd=within)
        except FileExistsError:
            remove(name, within)
            os.mkdir(name, 0o700, dir_fd=within)
        os.utime(name, ns=(_EARLY_NS, _EARLY_NS), dir_fd=within, follow_symlinks=False)
        made = TemporaryDirectory(where, name, within, _state(os.stat(name, dir_fd=within, follow_symlinks=False)))
    except FileNotFoundError:
        return None
    return made if _is_untouched(made) else None


def _cleared(temporary: TemporaryDirectory) -> TemporaryDirectory | None:
    """The same directory without its files, as new; None where subdirectories were left, or where it was replaced."""
    try:
        held = open_directory(temporary.name, temporary.within)
        try:
            if _state(os.fstat(held))[:_IDENTITY] != temporary.state[:_IDENTITY]:
                return None
            with os.scandir(held) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                os.unlink(name, dir_fd=held)
            os.utime(held, ns=(_EARLY_NS, _EARLY_NS))
            new = replace(temporary, state=_state(os.fstat(held)))
        finally:
            os.close(held)
    except OSError:
        return None
    return new if _is_untouched(new) else None


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mode, status.st_mtime_ns, status.st_ctime_ns


def _is_untouched(temporary: TemporaryDirectory) -> bool:
    try:
        return _state(os.lstat(temporary.where)) == temporary.state
    except OSError:
        return False
