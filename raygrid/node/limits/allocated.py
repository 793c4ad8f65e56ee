"""Measures the disk space of files by their blocks, without holes and files in memory. Links are never followed."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

from raygrid.system.proc import open_file_statuses

BLOCK = 512  # the unit of st_blocks on every file system
# A file system may preallocate as many blocks as a file has, and some for a new file.
_PREALLOCATED = 64 * 1024


class Allocated(NamedTuple):
    """Disk space that files take, bytes.

    Attributes:
        written: without holes, and without blocks that the file system has only preallocated.
        held: all blocks.
        growing: the part of `held` in files that were changed since a given moment.
    """

    written: int = 0
    held: int = 0
    growing: int = 0

    def __add__(self, other: object) -> Allocated:
        assert isinstance(other, Allocated)
        return Allocated(self.written + other.written, self.held + other.held, self.growing + other.growing)


def allocated(paths: Iterable[str], *, changed_since_ns: int = 0) -> Allocated:
    """Space of the files at and below some paths; a file with several names there counts once."""
    total, linked = Allocated(), set[tuple[int, int]]()
    for path in paths:
        with contextlib.suppress(OSError):
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                total += _below(path, changed_since_ns, linked)
            else:
                total += _of(status, changed_since_ns, linked)
    return total


def _below(top: str, changed_since_ns: int, linked: set[tuple[int, int]]) -> Allocated:
    total, waiting = Allocated(), [top]
    while waiting:
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:  # changed meanwhile, or locked
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        total += _of(entry.stat(follow_symlinks=False), changed_since_ns, linked)
    return total


def deleted_but_open(pids: Iterable[int], device: int, *, changed_since_ns: int = 0) -> Allocated:
    """Space of deleted files on a disk that these processes keep open, as far as the agent may inspect them."""
    total, seen = Allocated(), set[tuple[int, int]]()
    for pid in pids:
        for status in open_file_statuses(pid):
            if status.st_nlink == 0 and status.st_dev == device:
                total += _of(status, changed_since_ns, seen)
    return total


def _of(status: os.stat_result, changed_since_ns: int, seen: set[tuple[int, int]]) -> Allocated:
    if not stat.S_ISREG(status.st_mode):
        return Allocated()
    if status.st_nlink != 1:
        identity = status.st_dev, status.st_ino
        if identity in seen:
            return Allocated()
        seen.add(identity)
    size, held = status.st_size, status.st_blocks * BLOCK
    # If a file has far more blocks than its size, the program itself preallocated them.
    written = min(size, held) if held <= 2 * size + _PREALLOCATED else held
    return Allocated(written, held, held if status.st_mtime_ns >= changed_since_ns else 0)
