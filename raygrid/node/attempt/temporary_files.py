"""Directories for temporary files (`TMPDIR`): one for each attempt, removed with it, but reused while it is unused.

Most pricers never use their directory. An unused one is recognised by the times that it got when it was made: any file
put into it changes them, even if the file is removed again. Paths are short, because the path of a socket in such a
directory must fit into 107 bytes.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from collections import deque
from collections.abc import Container
from dataclasses import dataclass, replace
from pathlib import Path

from raygrid.node.attempt.safe_paths import has_attributes, make_directory, open_directory, remove
from raygrid.node.attempt.usage import RemainingWriters

VARIABLES = ("TMPDIR", "TMP", "TEMP")  # POSIX, and what Windows programs and others look for
_IDENTITY = 3  # the first parts of a state: which directory it is, and its mode
_STEP_NS = 10**8  # longer than any kernel's step of a file's times
_EARLY_NS = 10**9  # a modification time that no file put into a directory gives it


@dataclass(frozen=True, slots=True)
class TemporaryDirectory:
    """A directory for the temporary files of one attempt.

    Attributes:
        name: its name in the directory that `dir_fd` has open.
        state: identifies the directory that was made, while it is unused.
    """

    path: str
    name: str
    dir_fd: int
    state: tuple[int, ...]

    def variables(self, chosen: Container[str]) -> dict[str, str]:
        """The variables that name it, without those that the pricer's settings set."""
        return {name: self.path for name in VARIABLES if name not in chosen}


class TemporaryDirectories:
    """The temporary directories of one sandbox, or of a life of an agent; thread-safe.

    Attributes:
        path: the directory that contains them.
        descriptor: that directory, open; -1 before `open` and after `close`.
    """

    def __init__(self, place: Path) -> None:
        self.path = str(place)
        self.descriptor = -1
        self._seen_ns = 0  # when the directory had last been changed when it was read
        self._serial = itertools.count()
        self._free: deque[TemporaryDirectory] = deque()
        self._used_by_warm: deque[TemporaryDirectory] = deque()  # a warm process may still write there

    def open(self) -> None:
        """Open the pool's directory, which must exist."""
        self.descriptor = open_directory(self.path)

    def variables(self, chosen: Container[str]) -> dict[str, str]:
        """The variables that name the directory of them all, without those that the pricer's settings set."""
        return {name: self.path for name in VARIABLES if name not in chosen}

    def close(self) -> None:
        """Close the directory; no further directory is kept."""
        self._free.clear()
        self._used_by_warm.clear()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def are_unused(self) -> bool:
        """Whether the directory contains nothing but unused directories of this pool, while no attempt has one."""
        own = os.fstat(self.descriptor)
        if own.st_ctime_ns == self._seen_ns:
            return True
        # Seen before the directory is read: if it changes meanwhile, it is read again the next time. Kernels before
        # 6.13 note times in steps: what was changed just now may change again without another time.
        self._seen_ns = own.st_ctime_ns if time.time_ns() - own.st_ctime_ns > _STEP_NS else 0
        with os.scandir(self.path) as entries:
            names = {entry.name for entry in entries}
        return names == {each.name for each in self._free} and os.path.samestat(own, os.lstat(self.path))

    def take(self, job_directory: str, dir_fd: int) -> TemporaryDirectory:
        """An empty directory; beside the job directory if a pricer removed this pool's directory.

        Raises:
            OSError: the disk refuses it.
        """
        for spares in (self._free, self._used_by_warm):  # a job may have removed or changed directories of others
            with contextlib.suppress(IndexError):
                while not _is_unused(spare := spares.popleft()):
                    self._remove(spare)
                return spare
        place, _, name = job_directory.rpartition("/")
        made = _made(self.path, str(next(self._serial)), self.descriptor) or _made(place, f"{name}@tmp", dir_fd)
        if made is None:
            raise OSError(errno.ELOOP, "the node's directories were replaced", job_directory)
        return made

    def give_back(self, temporary: TemporaryDirectory, writers: RemainingWriters) -> None:
        """Take a directory back after its attempt; it is removed unless it can be reused."""
        spare: TemporaryDirectory | None = None
        if writers is not RemainingWriters.UNKNOWN and temporary.dir_fd == self.descriptor:
            spare = temporary if _is_unused(temporary) else _cleared(temporary)
        if spare is None:
            self._remove(temporary)
        else:
            (self._free if writers is RemainingWriters.NONE else self._used_by_warm).append(spare)

    @staticmethod
    def _remove(temporary: TemporaryDirectory) -> None:
        with contextlib.suppress(OSError):  # what cannot be removed now is removed when the agent ends
            remove(temporary.name, temporary.dir_fd)


def _made(place: str, name: str, dir_fd: int) -> TemporaryDirectory | None:
    """A new directory; None if a pricer removed or replaced its parent."""
    path = f"{place}/{name}"
    try:
        make_directory(name, dir_fd, 0o700)
        os.utime(name, ns=(_EARLY_NS, _EARLY_NS), dir_fd=dir_fd, follow_symlinks=False)
        made = TemporaryDirectory(path, name, dir_fd, _state(os.stat(name, dir_fd=dir_fd, follow_symlinks=False)))
    except FileNotFoundError:
        return None
    return made if _is_unused(made) else None


def _cleared(temporary: TemporaryDirectory) -> TemporaryDirectory | None:
    """The same directory without its files, as good as new; None if it has subdirectories, or was replaced."""
    try:
        descriptor = open_directory(temporary.name, temporary.dir_fd)
        try:
            if _state(os.fstat(descriptor))[:_IDENTITY] != temporary.state[:_IDENTITY] or has_attributes(descriptor):
                return None
            with os.scandir(descriptor) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                os.unlink(name, dir_fd=descriptor)
            os.utime(descriptor, ns=(_EARLY_NS, _EARLY_NS))
            new = replace(temporary, state=_state(os.fstat(descriptor)))
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return new if _is_unused(new) else None


def _state(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_mode, status.st_mtime_ns, status.st_ctime_ns


def _is_unused(temporary: TemporaryDirectory) -> bool:
    try:
        return _state(os.lstat(temporary.path)) == temporary.state
    except OSError:
        return False
