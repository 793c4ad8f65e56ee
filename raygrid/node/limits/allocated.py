"""How much disk space files take, by their blocks: holes do not count, nor do files in memory.

Links are never followed. Used by `disk.py` and `largest_attempt.py`; nothing here decides anything.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from typing import NamedTuple

BLOCK = 512  # the unit of st_blocks, whatever the file system's own blocks are
# A file system may reserve as many blocks as a file has, and some from the start, for what will be written.
_SLACK = 64 * 1024


class Allocated(NamedTuple):
    """Disk space that files take, bytes.

    Attributes:
        written: what counts as written to disk: no holes, and no blocks that the file system has only reserved.
        held: all blocks.
        growing: those of `held` that are in files which were changed since a given moment.
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
    """Space of the files on a disk that have no name any more and that these processes keep open.

    Args:
        pids: the processes; those that have ended, or that the agent may not inspect, are left out.
        device: the disk.
        changed_since_ns: as for `allocated`.
    """
    total, seen = Allocated(), set[tuple[int, int]]()
    for pid in pids:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{name}")
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
    written = min(size, held) if held <= 2 * size + _SLACK else held  # else the program reserved them itself
    return Allocated(written, held, held if status.st_mtime_ns >= changed_since_ns else 0)
