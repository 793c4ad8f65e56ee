"""Job directories for reuse: an attempt takes one by renaming it, with a small input of an earlier attempt in it.

Making and removing a directory and an input for every job costs the file system more than a short job takes: ext4
without a journal searches recently removed inodes, and disks that discard removed blocks wait for that. A directory is
kept only if it is as good as new and no process is left that could write into it.
"""

from __future__ import annotations

import itertools
import os
from collections import deque
from pathlib import Path
from typing import NamedTuple

from raygrid.node.attempt.directory import DirectoryHandle, JobDirectory
from raygrid.node.attempt.safe_paths import open_directory


class SpareDirectory(NamedTuple):
    """A directory that contains nothing, or only the input of an earlier attempt."""

    handle: DirectoryHandle
    input_name: str | None


class SpareDirectories:
    """The spare directories of one life of an agent, in a directory of their own; thread-safe."""

    def __init__(self, place: Path) -> None:
        self._place = str(place)
        self._descriptor = -1
        self._serial = itertools.count()
        self._free: deque[SpareDirectory] = deque()
        self._new_mode = 0

    def open(self) -> None:
        """Open the pool's directory, and find out which mode new directories get in it."""
        self._descriptor = open_directory(self._place)
        os.mkdir("probe", dir_fd=self._descriptor)
        self._new_mode = os.stat("probe", dir_fd=self._descriptor).st_mode
        os.rmdir("probe", dir_fd=self._descriptor)

    def close(self) -> None:
        """Close all descriptors; no further directory is kept or taken."""
        while self._free:
            self._free.pop().handle.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, place: str, name: str, dir_fd: int) -> SpareDirectory | None:
        """Rename a spare directory to `name` in the directory at `place`; None if there is none, or if that fails."""
        try:
            spare = self._free.pop()
        except IndexError:
            return None
        try:
            return SpareDirectory(spare.handle.moved_to(place, name, dir_fd), spare.input_name)
        except OSError:
            spare.handle.close()
            return None

    def keep(self, directory: JobDirectory) -> bool:
        """Keep a job directory for reuse; False if it is not as good as new; then it still has its name."""
        try:
            if self._descriptor < 0 or not directory.clear(self._new_mode):
                return False
            handle = directory.handle.moved_to(self._place, str(next(self._serial)), self._descriptor)
        except OSError:
            return False
        self._free.append(SpareDirectory(handle, directory.input_name))
        return True
