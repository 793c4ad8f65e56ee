"""Job directories that served and are empty but for a small input: the next attempt takes one over by renaming it.

A file system that makes and removes a directory and an input for every job spends more on that than a short job
takes: some look through everything that was removed lately, some wait for the disk. Only what is as good as new is
kept, and only if nobody is left who could still write into it. `workspace.py` owns this.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raygrid.node.attempt.captures import Captures
from raygrid.node.attempt.safe_paths import is_as_new, open_directory
from raygrid.node.attempt.temporary_files import Temporary

KEPT_INPUT = 64 * 1024  # a larger input is removed with its job


@dataclass(slots=True)
class JobDirectory:
    """The places of one attempt on disk.

    Attributes:
        where: the directory itself.
        name: its name in the directory that it is in.
        within: descriptor of that directory.
        held: descriptor of the directory itself, whatever stands under its name by now; -1 where it is not open.
        identity: device and inode of what is held.
        captures: what takes the attempt's output; only attempts have it.
        temporary: where its temporary files go; only attempts have it.
        input: name of the input that lies in it; at first perhaps that of an earlier attempt.
        is_left_alone: whether nobody is left who could write into it, so that it may serve again.
        is_warm: whether a warm process had it, which goes on with other jobs.
        bare_mode: its mode when nothing but the input was seen in it and that was so; else None.
    """

    where: str
    name: str
    within: int = -1
    held: int = -1
    identity: tuple[int, int] = (-1, -1)
    captures: Captures | None = None
    temporary: Temporary | None = None
    input: str | None = None
    is_left_alone: bool = False
    is_warm: bool = False
    bare_mode: int | None = None

    @property
    def path(self) -> Path:
        """The directory."""
        return Path(self.where)

    @property
    def data(self) -> Path:
        """Where shared inputs lie."""
        return Path(self.where, "data")

    @property
    def streams(self) -> Captures:
        """What takes the attempt's output."""
        assert self.captures is not None, "no attempt runs here"
        return self.captures

    @property
    def temporary_files(self) -> Temporary:
        """Where the attempt's temporary files go."""
        assert self.temporary is not None, "no attempt runs here"
        return self.temporary

    def hold(self, descriptor: int) -> None:
        """Take an open descriptor of the directory over."""
        self.held = descriptor
        status = os.fstat(descriptor)
        self.identity = status.st_dev, status.st_ino

    def in_place(self) -> os.stat_result | None:
        """What its path leads to, without following a link at its end; None unless that is what is open."""
        return self._same(lambda: os.lstat(self.where))

    def is_named(self) -> bool:
        """Whether it is the one that has its name, wherever the directory around it may be by now."""
        return self._same(lambda: os.stat(self.name, dir_fd=self.within, follow_symlinks=False)) is not None

    def _same(self, look: Callable[[], os.stat_result]) -> os.stat_result | None:
        try:
            status = look()
        except OSError:
            return None
        return status if (status.st_dev, status.st_ino) == self.identity else None

    def close(self) -> None:
        """Hold it no more."""
        if self.held >= 0:
            os.close(self.held)
            self.held = -1

    @staticmethod
    def at(place: str, name: str, within: int = -1) -> JobDirectory:
        """A directory of that name in a place, of which `within` is a descriptor."""
        return JobDirectory(f"{place}/{name}", name, within)


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
        directory.input, directory.held, directory.identity = spare.input, spare.held, spare.identity
        return True

    def keep(self, directory: JobDirectory) -> bool:
        """Take a directory back; False where it is not as good as new, and is still there, whole or in part."""
        try:
            if self._held < 0 or not self._clear(directory):
                return False
            spare = JobDirectory.at(self._place, str(next(self._serial)), self._held)
            os.rename(directory.name, spare.name, src_dir_fd=directory.within, dst_dir_fd=self._held)
        except OSError:
            return False
        spare.input, spare.held, spare.identity = directory.input, directory.held, directory.identity
        directory.held = -1
        self._free.append(spare)
        return True

    def _clear(self, directory: JobDirectory) -> bool:
        """Remove all but the input; False where something else is there than a pricer usually leaves."""
        if directory.bare_mode is not None:
            return directory.bare_mode == self._mode
        if not directory.is_named() or os.fstat(directory.held).st_mode != self._mode:
            return False
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
