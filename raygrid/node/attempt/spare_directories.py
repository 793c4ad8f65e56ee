"""Job directories for reuse: an attempt takes one over by renaming it, with a small input of an earlier attempt in it.

A file system that makes and removes a directory and an input for every job spends more on that than a short job takes:
ext4 without a journal searches what was removed lately, and disks that discard removed blocks wait for it. Only a
directory that is as good as new is kept, and only if no process is left that could write into it.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from pathlib import Path
from typing import NamedTuple

from raygrid.node.attempt.directory import HeldDirectory, JobDirectory
from raygrid.node.attempt.safe_paths import open_directory


class SpareDirectory(NamedTuple):
    """A directory that is empty but for the input of an earlier attempt, if that is still there."""

    held: HeldDirectory
    input_name: str | None


class SpareDirectories:
    """The spare directories of one life of an agent, under a directory of their own. Safe to call from many threads."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self._descriptor = -1
        self._serial = itertools.count()
        self._free: deque[SpareDirectory] = deque()
        self._new_mode = 0

    def open(self) -> None:
        """Open the directory, and find out which mode a new directory has in it."""
        self._descriptor = open_directory(self._place)
        os.mkdir("probe", dir_fd=self._descriptor)
        self._new_mode = os.stat("probe", dir_fd=self._descriptor).st_mode
        os.rmdir("probe", dir_fd=self._descriptor)

    def close(self) -> None:
        """Close all descriptors; nothing is kept or taken any more."""
        while self._free:
            self._free.pop().held.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, place: str, name: str, within: int) -> SpareDirectory | None:
        """Rename a spare directory to a name in a place; None where there is none, or where that fails."""
        try:
            spare = self._free.pop()
        except IndexError:
            return None
        try:
            return SpareDirectory(spare.held.moved_to(place, name, within), spare.input_name)
        except OSError:
            spare.held.close()
            return None

    def keep(self, directory: JobDirectory) -> bool:
        """Keep a job directory for reuse; False where it is not as good as new, and still has its name."""
        try:
            if self._descriptor < 0 or not directory.clear(self._new_mode):
                return False
            held = directory.held.moved_to(self._place, str(next(self._serial)), self._descriptor)
        except OSError:
            return False
        self._free.append(SpareDirectory(held, directory.input_name))
        return True
