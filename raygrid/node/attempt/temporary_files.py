"""Directories for temporary files (`TMPDIR`): one for each attempt, removed with it, used again while it is untouched.

Most pricers never use theirs, so that making one for each would be wasted. One that was left untouched serves again;
it is told by the times that it had when it was made, which any file put into it changes, were it removed again.
Paths are short, for sockets in these directories must fit into 107 bytes. `workspace.py` owns this.
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

from raygrid.node.attempt.safe_paths import open_directory, remove

VARIABLES = ("TMPDIR", "TMP", "TEMP")  # POSIX, and what Windows programs and others look for
_IDENTITY = 3  # as many of the parts of a state tell which directory it is, and what may be done there
_EARLY_NS = 10**9  # a time of change that no file put into a directory gives it


@dataclass(frozen=True, slots=True)
class Temporary:
    """A directory for the temporary files of one attempt.

    Attributes:
        where: its path.
        name: its name in the directory `within`, of which that is an open descriptor.
        within: see there.
        state: what tells that it is the one that was made, and untouched.
    """

    where: str
    name: str
    within: int
    state: tuple[int, ...]

    def variables(self, chosen: Container[str]) -> dict[str, str]:
        """The variables that lead to it, but for those that the pricer's settings have chosen otherwise."""
        return {name: self.where for name in VARIABLES if name not in chosen}


class TemporaryPool:
    """The temporary directories of one life of an agent. Safe to call from many threads."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self._held = -1
        self._serial = itertools.count()
        self._free: deque[Temporary] = deque()
        self._doubtful: deque[Temporary] = deque()  # a process that had them goes on, and may still write there

    def open(self) -> None:
        """Begin, in a directory that is there."""
        self._held = open_directory(self._place)

    def close(self) -> None:
        """Hold nothing open any more."""
        self._free.clear()
        self._doubtful.clear()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def take(self, beside: str, within: int) -> Temporary:
        """An empty directory.

        Args:
            beside: path of the job directory, beside which it is made where a pricer removed the pool's directory.
            within: descriptor of the directory that it is in.

        Raises:
            OSError: the disk does not take it.
        """
        for spares in (self._free, self._doubtful):  # a job may have removed or changed those of others
            with contextlib.suppress(IndexError):
                while not _is_untouched(spare := spares.popleft()):
                    self._remove(spare)
                return spare
        place, _, name = beside.rpartition("/")
        made = _made(self._place, str(next(self._serial)), self._held) or _made(place, f"{name}@tmp", within)
        if made is None:
            raise OSError(errno.ELOOP, "something was put in the place of the node's directories", beside)
        return made

    def give_back(self, temporary: Temporary, *, is_left_alone: bool, is_warm: bool) -> None:
        """Take one back once its attempt is over.

        Args:
            temporary: the directory.
            is_left_alone: whether no process is left that could still write into it.
            is_warm: whether the process that had it goes on with other jobs.
        """
        spare: Temporary | None = None
        if (is_left_alone or is_warm) and temporary.within == self._held:
            spare = temporary if _is_untouched(temporary) else _cleared(temporary)
        if spare is None:
            self._remove(temporary)
        else:
            (self._free if is_left_alone else self._doubtful).append(spare)

    @staticmethod
    def _remove(temporary: Temporary) -> None:
        with contextlib.suppress(OSError):  # what a daemon still writes into is removed with the agent's life
            remove(temporary.name, temporary.within)


def _made(place: str, name: str, within: int) -> Temporary | None:
    """A new directory; None where a pricer removed the one that it is to be in, or put something in its place."""
    where = f"{place}/{name}"
    try:
        try:
            os.mkdir(name, 0o700, dir_fd=within)
        except FileExistsError:
            remove(name, within)
            os.mkdir(name, 0o700, dir_fd=within)
        os.utime(name, ns=(_EARLY_NS, _EARLY_NS), dir_fd=within, follow_symlinks=False)
        made = Temporary(where, name, within, _state(os.stat(name, dir_fd=within, follow_symlinks=False)))
    except FileNotFoundError:
        return None
    return made if _is_untouched(made) else None


def _cleared(temporary: Temporary) -> Temporary | None:
    """The same directory without the files in it, as new; None where more than files were left, or it is another."""
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


def _is_untouched(temporary: Temporary) -> bool:
    try:
        return _state(os.lstat(temporary.where)) == temporary.state
    except OSError:
        return False
