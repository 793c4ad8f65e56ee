"""Job directories that served and are empty but for a small input: the next attempt takes one over by renaming it.

A file system that makes and removes a directory and three files for every job spends more on that than a short job
takes: some look through everything that was removed lately, some wait for the disk. Only what is as good as new is
kept, and only if nobody is left who could still write into it. `workspace.py` owns this.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections import deque
from dataclasses import dataclass
from pathlib import Path

KEPT_INPUT = 64 * 1024  # a larger input is removed with its job
_OWN = stat.S_IRUSR | stat.S_IWUSR


@dataclass(slots=True)
class JobDirectory:
    """The places of one attempt on disk.

    Attributes:
        where: the directory itself.
        input: name of the input that lies in it; at first perhaps that of an earlier attempt.
        is_left_alone: whether nobody is left who could write into it, so that it may serve again.
        is_bare: whether nothing but the input was in it when that was so.
        stdout_at: where stdout is captured; beside the directory, like that of stderr.
        stderr_at: where stderr is captured.
    """

    where: str
    stdout_at: str
    stderr_at: str
    input: str | None = None
    is_left_alone: bool = False
    is_bare: bool = False

    @property
    def path(self) -> Path:
        """The directory."""
        return Path(self.where)

    @property
    def stdout(self) -> Path:
        """Where stdout is captured."""
        return Path(self.stdout_at)

    @property
    def stderr(self) -> Path:
        """Where stderr is captured."""
        return Path(self.stderr_at)

    @property
    def data(self) -> Path:
        """Where shared inputs lie."""
        return Path(self.where, "data")

    @staticmethod
    def at(where: str) -> JobDirectory:
        """The places that go with a directory. A job id cannot contain '@', so they belong to no other attempt."""
        return JobDirectory(where, f"{where}@stdout", f"{where}@stderr")


class Spares:
    """The spare directories of one life of an agent, under a directory of their own. Safe to call from many threads."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self._serial = itertools.count()
        self._free: deque[JobDirectory] = deque()
        self._mode = 0

    def open(self) -> None:
        """Learn what a directory that is as good as new looks like."""
        probe = f"{self._place}/probe"
        os.mkdir(probe)
        self._mode = os.lstat(probe).st_mode
        os.rmdir(probe)

    def take(self, directory: JobDirectory) -> bool:
        """Have a spare directory become this one; False where there is none, and nothing was done."""
        try:
            spare = self._free.pop()
        except IndexError:
            return False
        try:
            os.rename(spare.where, directory.where)
        except OSError:
            return False
        directory.input = spare.input
        for old, new in ((spare.stdout_at, directory.stdout_at), (spare.stderr_at, directory.stderr_at)):
            with contextlib.suppress(OSError):  # it was not kept: a new one is made
                os.rename(old, new)
        return True

    def keep(self, directory: JobDirectory) -> bool:
        """Take a directory back; False where it is not as good as new, and is still there, whole or in part."""
        try:
            if not self._clear(directory):
                return False
            spare = JobDirectory.at(f"{self._place}/{next(self._serial)}")
            spare.input = directory.input
            os.rename(directory.where, spare.where)
        except OSError:
            return False
        for old, new in ((directory.stdout_at, spare.stdout_at), (directory.stderr_at, spare.stderr_at)):
            _keep_capture(old, new)
        self._free.append(spare)
        return True

    def _clear(self, directory: JobDirectory) -> bool:
        """Remove all but the input; False where something else is there than a pricer usually leaves."""
        if os.lstat(directory.where).st_mode != self._mode:
            return False
        if directory.is_bare:
            return True
        kept = None
        with os.scandir(directory.where) as entries:
            found = list(entries)
        for entry in found:
            if entry.name == directory.input and is_as_new(entry.stat(follow_symlinks=False), KEPT_INPUT):
                kept = entry.name
            else:
                os.unlink(entry.path)
        directory.input = kept
        return True


def is_as_new(status: os.stat_result, most: int) -> bool:
    """Whether a file can serve again: a plain one, under no other name, that may be written, no larger than `most`."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_nlink == 1
        and status.st_mode & _OWN == _OWN
        and status.st_size <= most
    )


def _keep_capture(old: str, new: str) -> None:
    """Keep an empty capture; one with something in it costs less to make anew than to empty."""
    with contextlib.suppress(OSError):
        if is_as_new(os.lstat(old), 0):
            os.rename(old, new)
        else:
            os.unlink(old)
