"""Finds the files that a process has open for writing, and how much it has written."""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys
from collections.abc import Iterator
from typing import NamedTuple

from raygrid.system.proc import directories_of, numbers, read_text

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_STATX_BTIME = 0x800
_MASK, _BTIME_S, _BTIME_NS, _SIZE = 0, 80, 88, 256  # offsets and size of struct statx; see statx(2)


class WrittenFile(NamedTuple):
    """A file that a process has open for writing: its path as the process sees it, and its status."""

    path: str
    opened: str
    status: os.stat_result


def open_for_writing(pid: int) -> Iterator[WrittenFile]:
    """The regular files that a process has open for writing; none if it may not be inspected."""
    for directory in directories_of(pid):
        with contextlib.suppress(OSError):
            names = os.listdir(f"{directory}/fd")
            for name in names:
                opened = f"{directory}/fd/{name}"
                with contextlib.suppress(OSError):
                    if os.lstat(opened).st_mode & stat.S_IWUSR:  # the mode of the link is that of the descriptor
                        status = os.stat(opened)
                        if stat.S_ISREG(status.st_mode):
                            yield WrittenFile(os.readlink(opened), opened, status)
            if names:
                return


def born_at_ns(path: str) -> int | None:
    """When a file was made, in nanoseconds since the epoch; None if its file system does not store that."""
    found = ctypes.create_string_buffer(_SIZE)
    try:
        failed = _libc.statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, found)
    except AttributeError:  # an old C library
        return None
    if failed or not int.from_bytes(found.raw[_MASK : _MASK + 4], sys.byteorder) & _STATX_BTIME:
        return None
    seconds = int.from_bytes(found.raw[_BTIME_S : _BTIME_S + 8], sys.byteorder, signed=True)
    return seconds * 10**9 + int.from_bytes(found.raw[_BTIME_NS : _BTIME_NS + 4], sys.byteorder)


def written_by(pid: int) -> int:
    """The most that a process and the children that it has waited for can have written, bytes.

    It counts every write, also of the same place and into pipes; 0 if it may not be inspected.
    """
    found = numbers(read_text(f"/proc/{pid}/io"))
    return max(found.get("wchar:", 0), found.get("write_bytes:", 0) - found.get("cancelled_write_bytes:", 0))
