"""Opens and removes files and directories that a pricer could change, without following links.

Each name is resolved from the descriptor of a directory that the node itself opened, one component at a time. Even if a
pricer replaces a name meanwhile, nothing outside of that directory is read, changed or removed. Parameters `dir_fd` are
descriptors of the directory that contains `name`, None for the working directory.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from uuid_utils import uuid4

from raygrid.system import system_calls
from raygrid.system.proc import descriptor_path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN = stat.S_IRUSR | stat.S_IWUSR
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# The kernel's errors for a link, for a pipe without a reader or a socket, and for a directory opened as a file.
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR)


class BadOutputError(Exception):
    """A pricer left something that cannot be part of a result."""


class FileIdentity(NamedTuple):
    """Distinguishes a file from any other that gets its name, and shows whether its names were changed.

    Attributes:
        links: the number of its names (hard links).
        names_changed_ns: 0 for a file with one name, else its time of change, which a new, renamed or removed name
            changes; so would a write to it.
    """

    device: int
    inode: int
    links: int
    names_changed_ns: int

    @staticmethod
    def of(status: os.stat_result) -> FileIdentity:
        """The identity of a file."""
        links = status.st_nlink
        return FileIdentity(status.st_dev, status.st_ino, links, status.st_ctime_ns if links > 1 else 0)


def kind(mode: int) -> str:
    """The kind of an unexpected file, for messages."""
    if stat.S_ISDIR(mode):
        return "another directory"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a file" if stat.S_ISREG(mode) else "a special file"


def is_reusable(status: os.stat_result, most: int) -> bool:
    """Whether a file can be reused: regular, with one name, writable, and no larger than `most` bytes."""
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_nlink == 1
        and status.st_mode & _OWN == _OWN
        and status.st_size <= most
    )


def make_directory(name: str, dir_fd: int, mode: int = 0o777) -> None:
    """Make a directory, and remove first what has its name."""
    try:
        os.mkdir(name, mode, dir_fd=dir_fd)
    except FileExistsError:
        remove(name, dir_fd)
        os.mkdir(name, mode, dir_fd=dir_fd)


def open_directory(name: str, dir_fd: int | None = None) -> int:
    """Open a directory; OSError if it does not exist, is no directory, or is a link."""
    return os.open(name, _DIRECTORY, dir_fd=dir_fd)


def open_file(
    name: str, dir_fd: int | None = None, flags: int = os.O_RDONLY, identity: FileIdentity | None = None
) -> int:
    """Open a regular file; no component of its path may be a link, and a pipe of its name does not block.

    Raises:
        BadOutputError: its name belongs to something else; with `identity`, to another file, or the file got or lost
            a name.
        OSError: it does not exist, or cannot be opened.
    """
    try:
        if "/" not in name or dir_fd is None:
            file = os.open(name, flags | _FILE, 0o666, dir_fd=dir_fd)
        else:
            inner, _, last = name.rpartition("/")
            directory = descend(dir_fd, inner)
            try:
                file = os.open(last, flags | _FILE, 0o666, dir_fd=directory)
            finally:
                os.close(directory)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise BadOutputError(f"the pricer replaced the file {name!r}") from None
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode):
        os.close(file)
        raise BadOutputError(f"the pricer replaced the file {name!r} by a special file")
    if identity is not None and FileIdentity.of(status) != identity:
        os.close(file)
        raise BadOutputError(
            f"the file {name!r} was replaced, or got another hard link, after the pricer had ended; end its other "
            "processes before it ends"
        )
    return file


def read_file(name: str, dir_fd: int | None = None, identity: FileIdentity | None = None) -> IO[bytes]:
    """Open a regular file for reading; see `open_file`."""
    return os.fdopen(open_file(name, dir_fd, identity=identity), "rb")


def descend(top: int, name: str) -> int:
    """Open a directory below another (itself for an empty name); OSError if a component of the path is a link."""
    at = os.dup(top)
    for part in name.split("/") if name else ():
        above = at
        try:
            at = os.open(part, _DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return at


def has_attributes(descriptor: int) -> bool:
    """Whether a file or directory has attributes that a pricer may have set, such as permissions of further users."""
    try:
        if not system_calls.attributes_size(descriptor):
            return False
        return any(name.startswith(("user.", "system.posix_acl")) for name in os.listxattr(descriptor))
    except OSError:  # the file system has none
        return False


def remove(name: str, dir_fd: int | None = None) -> None:
    """Remove a file or directory of any kind, if it exists: a link itself, never its target.

    Raises:
        OSError: a process still writes to it, or the disk refuses.
    """
    try:
        os.unlink(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        remove_tree(name, dir_fd)


def remove_tree(top: str | Path, dir_fd: int | None = None) -> None:
    """Remove a directory, even one without permissions, or one that is deeper than the longest possible path.

    Inner directories are moved to the top before they are emptied, so that no path grows long. If the directory or its
    parent was replaced by a link, nothing beyond the link is touched.

    Raises:
        OSError: a process still writes to it, or the disk refuses.
    """
    path = Path(top)
    around = os.open(path.parent, _LOOK) if dir_fd is None else os.dup(dir_fd)
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


def _unlock(name: str, dir_fd: int) -> int:
    """Open a directory, after setting all permissions on it."""
    seen = os.open(name, _LOOK, dir_fd=dir_fd)  # needs no permission
    try:
        os.chmod(descriptor_path(seen), 0o700)
        return os.open(descriptor_path(seen), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(seen)
