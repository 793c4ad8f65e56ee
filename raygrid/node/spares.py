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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raygrid.node.beneath import open_directory, remove

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
        within: descriptor of the directory that all three are in.
        held: descriptor of the directory itself, whatever stands under its name by now; -1 where it is not open.
    """

    where: str
    stdout_at: str
    stderr_at: str
    input: str | None = None
    is_left_alone: bool = False
    is_bare: bool = False
    within: int = -1
    held: int = -1

    @property
    def name(self) -> str:
        """Its name in the directory that it is in."""
        return self.where.rpartition("/")[2]

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

    @property
    def captures(self) -> tuple[str, str]:
        """Names of the captures in the directory that they are in: stdout, stderr."""
        return f"{self.name}@stdout", f"{self.name}@stderr"

    def is_in_place(self) -> bool:
        """Whether the directory that is open is the one that its path leads to; without following a link at its end."""
        return self._is(lambda: os.lstat(self.where))

    def is_named(self) -> bool:
        """Whether it is the one that has its name, wherever the directory around it may be by now."""
        return self._is(lambda: os.stat(self.name, dir_fd=self.within, follow_symlinks=False))

    def _is(self, look: Callable[[], os.stat_result]) -> bool:
        try:
            return os.path.samestat(look(), os.fstat(self.held))
        except OSError:
            return False

    def close(self) -> None:
        """Hold it no more."""
        if self.held >= 0:
            os.close(self.held)
            self.held = -1

    @staticmethod
    def at(where: str, within: int = -1) -> JobDirectory:
        """The places that go with a directory. A job id cannot contain '@', so they belong to no other attempt."""
        return JobDirectory(where, f"{where}@stdout", f"{where}@stderr", within=within)


class Spares:
    """The spare directories of one life of an agent, under a directory of their own. Safe to call from many threads."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self._held = -1
        self._serial = itertools.count()
        self._free: deque[JobDirectory] = deque()
        self._mode = 0

    def open(self) -> None:
        """Learn what a directory that is as good as new looks like."""
        self._held = open_directory(self._place)
        os.mkdir("probe", dir_fd=self._held)
        self._mode = os.stat("probe", dir_fd=self._held).st_mode
        os.rmdir("probe", dir_fd=self._held)

    def close(self) -> None:
        """Hold nothing open any more; none is kept or taken after that."""
        while self._free:
            self._free.pop().close()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def take(self, directory: JobDirectory) -> bool:
        """Have a spare directory become this one; False where there is none, and nothing was done."""
        try:
            spare = self._free.pop()
        except IndexError:
            return False
        try:
            os.rename(spare.name, directory.name, src_dir_fd=self._held, dst_dir_fd=directory.within)
        except OSError:
            spare.close()
            return False
        directory.input, directory.held = spare.input, spare.held
        for old, new in zip(spare.captures, directory.captures, strict=True):
            with contextlib.suppress(OSError):  # it was not kept: a new one is made
                os.rename(old, new, src_dir_fd=self._held, dst_dir_fd=directory.within)
        return True

    def keep(self, directory: JobDirectory) -> bool:
        """Take a directory back; False where it is not as good as new, and is still there, whole or in part."""
        try:
            if self._held < 0 or not self._clear(directory):
                return False
            spare = JobDirectory.at(f"{self._place}/{next(self._serial)}", self._held)
            os.rename(directory.name, spare.name, src_dir_fd=directory.within, dst_dir_fd=self._held)
        except OSError:
            return False
        for old, new in zip(directory.captures, spare.captures, strict=True):
            self._keep_capture(directory.within, old, new)
        spare.input, spare.held = directory.input, directory.held
        directory.held = -1
        self._free.append(spare)
        return True

    def _clear(self, directory: JobDirectory) -> bool:
        """Remove all but the input; False where something else is there than a pricer usually leaves."""
        if not directory.is_named() or os.fstat(directory.held).st_mode != self._mode:
            return False
        if directory.is_bare:
            return True
        kept = None
        with os.scandir(directory.held) as entries:
            found = list(entries)
        for entry in found:
            if entry.name == directory.input and is_as_new(entry.stat(follow_symlinks=False), KEPT_INPUT):
                kept = entry.name
            else:
                os.unlink(entry.name, dir_fd=directory.held)
        directory.input = kept
        return True

    def _keep_capture(self, within: int, old: str, new: str) -> None:
        """Keep an empty capture; one with something in it costs less to make anew than to empty."""
        with contextlib.suppress(OSError):
            if is_as_new(os.stat(old, dir_fd=within, follow_symlinks=False), 0):
                os.rename(old, new, src_dir_fd=within, dst_dir_fd=self._held)
            else:
                remove(old, within)


def is_as_new(status: os.stat_result, most: int) -> bool:
    """Whether a file can serve again: a plain one, under no other name, that may be written, no larger than `most`."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_nlink == 1
        and status.st_mode & _OWN == _OWN
        and status.st_size <= most
    )
