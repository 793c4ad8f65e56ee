"""The files that take what pricers print: held open, reached by descriptor, and used again while they are empty.

A pair serves attempt after attempt, since making and removing two files costs more than a short job prints. The pricer
gets the very files that the node holds, so that nothing it does to their names matters. A warm pricer is told the names
instead, and opens them itself. `workspace.py` owns this.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import stat
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from raygrid.node.beneath import open_directory, remove

_OWN = stat.S_IRUSR | stat.S_IWUSR
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FLAGS = 0


@dataclass(frozen=True, slots=True)
class Capture:
    """One file that takes what is printed.

    Attributes:
        title: its name in the result.
        name: its name in the directory `within`, of which that is an open descriptor.
        where: its path.
        file: its descriptor, open for reading and writing.
    """

    title: str
    name: str
    within: int
    where: str
    file: int

    def is_in_place(self) -> bool:
        """Whether it still has its name."""
        try:
            return os.path.samestat(os.stat(self.name, dir_fd=self.within, follow_symlinks=False), os.fstat(self.file))
        except OSError:
            return False

    def is_as_new(self) -> bool:
        """Whether it can serve again: empty, under no other name, to be read and written."""
        status = os.fstat(self.file)
        return status.st_size == 0 and status.st_nlink == 1 and status.st_mode & _OWN == _OWN

    def rewind(self) -> None:
        """Take back what an earlier pricer may have set: where it wrote next, and how."""
        os.lseek(self.file, 0, os.SEEK_SET)
        fcntl.fcntl(self.file, fcntl.F_SETFL, _NO_FLAGS)

    def drop(self) -> None:
        """Close it, and remove its name."""
        os.close(self.file)
        with contextlib.suppress(OSError):  # what a daemon still writes into is removed with the agent's life
            remove(self.name, self.within)


class Captures(NamedTuple):
    """What one attempt prints goes here."""

    stdout: Capture
    stderr: Capture

    def drop(self) -> None:
        """They serve no more."""
        for each in self:
            each.drop()


class CapturePool:
    """The captures of one life of an agent. Safe to call from many threads."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._held = -1
        self._serial = itertools.count()
        self._free: deque[Captures] = deque()

    def open(self) -> None:
        """Begin, in a directory that is there."""
        self._held = open_directory(self._place)

    def close(self) -> None:
        """Hold nothing open any more; none is kept after that."""
        while self._free:
            self._free.pop().drop()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def take(self, beside: str, within: int, *, named: bool) -> Captures:
        """A pair for one attempt.

        Args:
            beside: path of the job directory, beside which they are made where a pricer removed their own directory.
            within: descriptor of the directory that it is in.
            named: whether they must be found by name.
        """
        with contextlib.suppress(IndexError):
            captures = self._free.pop()
            if not named or all(each.is_in_place() for each in captures):
                return captures
            captures.drop()
        name = str(next(self._serial))
        try:
            return _make(f"{self._place}/{name}", name, self._held)
        except FileNotFoundError:
            return _make(beside, beside.rpartition("/")[2], within)

    def give_back(self, captures: Captures) -> None:
        """Take a pair back once nobody can write into it any more; it serves again if it is as good as new."""
        if self._held >= 0 and all(each.within == self._held and each.is_as_new() for each in captures):
            for each in captures:
                each.rewind()
            self._free.append(captures)
        else:
            captures.drop()


def _make(where: str, name: str, within: int) -> Captures:
    out = _made("stdout", where, name, within)
    try:
        return Captures(out, _made("stderr", where, name, within))
    except OSError:
        out.drop()
        raise


def _made(stream: str, where: str, name: str, within: int) -> Capture:
    named = f"{name}@{stream}"  # an attempt cannot be called so: a job id has no '@'
    try:
        file = os.open(named, _NEW, 0o666, dir_fd=within)
    except FileExistsError:
        remove(named, within)
        file = os.open(named, _NEW, 0o666, dir_fd=within)
    return Capture(f"{stream}.txt", named, within, f"{where}@{stream}", file)
