"""Opens and removes files and directories that a pricer could change, without following a link that it put there.

Each name is looked up from the descriptor of a directory that the node itself opened, one component at a time. Whatever
takes the place of a name meanwhile, nothing outside of that directory is read, changed or removed.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from uuid_utils import uuid4

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN = stat.S_IRUSR | stat.S_IWUSR
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# The kernel's errors for a link, for a pipe without a reader or a socket, and for a directory opened as a file.
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)


class BadOutputError(Exception):
    """A pricer left something that cannot be part of a result."""


def kind(mode: int) -> str:
    """Name the kind of a file that stands where it should not, for messages."""
    if stat.S_ISDIR(mode):
        return "another directory"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a file" if stat.S_ISREG(mode) else "a special file"


def is_reusable(status: os.stat_result, most: int) -> bool:
    """Whether a file can be used again: regular, with one name, writable, and no larger than `most`."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_nlink == 1
        and status.st_mode & _OWN == _OWN
        and status.st_size <= most
    )


def open_directory(name: str, within: int | None = None) -> int:
    """Open a directory; a link to one is refused.

    Raises:
        OSError: it is a link, is no directory, or does not exist.
    """
    return os.open(name, _DIRECTORY, dir_fd=within)


def open_file(name: str, within: int | None = None, flags: int = os.O_RDONLY) -> int:
    """Open a regular file; a link in its place is not followed, and a pipe in its place does not block.

    Args:
        name: its path from `within`; no component of it may be a link.
        within: descriptor of the directory that it is in; None for the working directory.
        flags: how to open it.

    Raises:
        BadOutputError: something else has its name.
        OSError: it does not exist, or cannot be opened.
    """
    try:
        if "/" not in name or within is None:
            file = os.open(name, flags | _FILE, 0o666, dir_fd=within)
        else:
            inner, _, last = name.rpartition("/")
            directory = descend(within, inner)
            try:
                file = os.open(last, flags | _FILE, 0o666, dir_fd=directory)
            finally:
                os.close(directory)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise BadOutputError(f"the pricer put something else in the place of a file, {name!r}") from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise BadOutputError(f"the pricer put a special file in the place of a file, {name!r}")
    return file


def read_file(name: str, within: int | None = None) -> IO[bytes]:
    """Open a regular file for reading; see `open_file`."""
    return os.fdopen(open_file(name, within), "rb")


def descend(top: int, name: str) -> int:
    """Open a directory below another; the empty name stands for that one. The caller closes it.

    Raises:
        OSError: a component of the path is a link, is no directory, or cannot be opened.
    """
    at = os.dup(top)
    for part in name.split("/") if name else ():
        above = at
        try:
            at = os.open(part, _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return at


def remove(name: str, within: int | None = None) -> None:
    """Remove whatever has a name, if anything has: a link itself, never what it leads to.

    Raises:
        OSError: a process still writes to it, or the disk refuses.
    """
    try:
        os.unlink(name, dir_fd=within)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        remove_tree(name, within)


def remove_tree(top: str | Path, within: int | None = None) -> None:
    """Remove a directory, even one without permissions, or deeper than any path or stack can be.

    Inner directories are moved to the top before they are emptied, so that no path grows long. If a link is in its
    place, or in the place of the directory around it, nothing beyond the link is touched.

    Args:
        top: the directory, by its name in `within`, or by its path.
        within: the directory that it is in.

    Raises:
        OSError: a process still writes to it, or the disk refuses.
    """
    path = Path(top)
    around = os.open(path.parent, _LOOK) if within is None else os.dup(within)
    try:
        if stat.S_ISDIR(os.stat(path.name, dir_fd=around, follow_symlinks=False).st_mode):
            _empty(path.name, around)
            os.rmdir(path.name, dir_fd=around)
        else:
            os.unlink(path.name, dir_fd=around)
    finally:
        os.close(around)


def _empty(name: str, around: int) -> None:
    fresh = (f".{uuid4().hex}-{number}" for number in itertools.count())
    top = _unlock(name, around)
    try:
        waiting = _sort_out(top, top, fresh)
        while waiting:
            inner = waiting.pop()
            directory = _unlock(inner, top)
            try:
                waiting += _sort_out(directory, top, fresh)
            finally:
                os.close(directory)
            os.rmdir(inner, dir_fd=top)
    finally:
        os.close(top)


def _sort_out(directory: int, top: int, fresh: Iterator[str]) -> list[str]:
    """Remove the files of a directory and move its directories to the top; return their new names there."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    moved: list[str] = []
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        os.close(_unlock(name, directory))  # moving a directory needs write permission on it
        moved.append(next(fresh))
        os.rename(name, moved[-1], src_dir_fd=directory, dst_dir_fd=top)
    return moved


def _unlock(name: str, within: int) -> int:
    """Open a directory, after setting all permissions on it."""
    seen = os.open(name, _LOOK, dir_fd=within)  # needs no permission
    try:
        os.chmod(f"/proc/self/fd/{seen}", 0o700)
        return os.open(f"/proc/self/fd/{seen}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(seen)
