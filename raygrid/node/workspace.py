"""Job directories: one an attempt, made before the pricer runs and removed after.

A job directory is the pricer's working directory and `{output_dir}`: the input lies in it under its own name, shared
inputs under `data/`, and whatever else is in it afterwards is the result. What the pricer prints is captured in two
files beside the directory, where the pricer's own files cannot collide with them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from uuid_utils import uuid4

from raygrid.models import AttemptId
from raygrid.node.spares import KEPT_INPUT, JobDirectory, Spares, is_as_new

MOST_FILES = 100_000
DISK_RESERVE = 64 * 1024**2  # with less room than this a node takes no work


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a pricer wrote: its path in the result, and on disk."""

    name: str
    path: str
    size: int
    changed_ns: int = 0

    @property
    def mark(self) -> tuple[int, int]:
        """See the function `mark`."""
        return self.size, self.changed_ns


class BadOutputError(Exception):
    """A pricer left something that cannot be part of a result."""


class Workspace:
    """The directory of one life of a node agent, under the node's root; nobody else writes here.

    Each life has its own jobs directory, so that the reaper of an earlier life, which may still be at work, cannot
    remove anything of this one.
    """

    def __init__(self, root: Path, incarnation: str) -> None:
        self.root = root
        self.shared = root / "data"
        self.jobs = root / "jobs" / incarnation
        self.spare = root / "spare" / incarnation
        self._spares = Spares(self.spare)
        self._jobs = str(self.jobs)

    def open(self) -> None:
        """Make the directories and remove the jobs of earlier lives."""
        for directory in (self.root, self.shared, self.jobs, self.spare):
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
        for mine in (self.jobs, self.spare):
            for earlier in mine.parent.iterdir():
                if earlier != mine:
                    with contextlib.suppress(OSError):
                        remove_tree(earlier)
        self._spares.open()

    def create(self, attempt: AttemptId) -> JobDirectory:
        """Make the directory of an attempt, or take over one that is as good as new."""
        directory = JobDirectory.at(f"{self._jobs}/{attempt.job_id}.{attempt.number}")
        if not self._spares.take(directory):
            try:
                os.mkdir(directory.where)
            except FileNotFoundError:  # a pricer may have removed more than its own
                os.makedirs(directory.where)
        return directory

    def write_input(self, directory: JobDirectory, name: str, data: bytes) -> tuple[int, int]:
        """Write an attempt's input, over that of an earlier one where there is one; gives its mark."""
        path = f"{directory.where}/{name}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        if directory.input is not None and directory.input != name:
            os.rename(f"{directory.where}/{directory.input}", path)
        directory.input = name
        file = os.open(path, flags, 0o666)
        try:
            done = os.write(file, data)
            while done < len(data):
                done += os.write(file, data[done:])
            status = os.fstat(file)
            if status.st_size != len(data):
                os.ftruncate(file, len(data))
                status = os.fstat(file)
        finally:
            os.close(file)
        return status.st_size, status.st_mtime_ns

    def clear_input(self, directory: JobDirectory) -> None:
        """Have no input in a directory."""
        if directory.input is not None:
            os.unlink(f"{directory.where}/{directory.input}")
            directory.input = None

    def remove(self, directory: JobDirectory) -> None:
        """Remove everything of an attempt, whatever the pricer did to its permissions, or keep it for the next one."""
        if directory.is_left_alone and self._spares.keep(directory):
            return
        for capture in (directory.stdout_at, directory.stderr_at):
            with contextlib.suppress(OSError):  # it may be a directory by now; that goes with the agent's life
                os.unlink(capture)
        try:
            # Most pricers leave a few files: far quicker than rmtree, which must expect anything.
            with os.scandir(directory.where) as entries:
                names = [entry.path for entry in entries]
            for name in names:
                os.unlink(name)
            os.rmdir(directory.where)
        except OSError:
            with contextlib.suppress(OSError):  # what a daemon still writes into is removed with the agent's life
                remove_tree(directory.path)

    def free_bytes(self) -> int:
        """Free room on the workspace's disk."""
        return shutil.disk_usage(self.root).free


def remove_tree(top: Path) -> None:
    """Remove a directory whatever a pricer made of it: without permissions, or deeper than any path or stack can be.

    Inner directories are moved up to the top before they are emptied, so that no path grows long.

    Raises:
        OSError: somebody still writes in it, or the disk refuses.
    """
    lifted = f".{uuid4().hex}-"
    count = 0
    directories = [top]
    while directories:
        directory = directories.pop()
        os.chmod(directory, 0o700)
        with os.scandir(directory) as entries:
            found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for path, is_directory in found:
            if not is_directory:
                os.unlink(path)
                continue
            os.chmod(path, 0o700)  # moving a directory writes into it, too
            count += 1
            os.rename(path, top / f"{lifted}{count}")
            directories.append(top / f"{lifted}{count}")
        if directory != top:
            os.rmdir(directory)
    os.rmdir(top)


def outputs(directory: JobDirectory, input_path: str, input_mark: tuple[int, int]) -> list[OutputFile]:
    """The files that a pricer wrote, in name order: all regular files but the untouched input and the shared data.

    Args:
        directory: the attempt's directory.
        input_path: the input; it counts as an output only if the pricer changed it.
        input_mark: size and modification time of the input before the run.

    Raises:
        BadOutputError: something else than a regular file or directory is there, such as a symbolic link.
    """
    found: list[OutputFile] = []
    try:
        if _holds_nothing_else(directory, input_mark):
            directory.is_bare = directory.is_left_alone
            return []
        _walk(directory.where, "", found, skip=f"{directory.where}/data")
    except (RecursionError, PermissionError, FileNotFoundError, NotADirectoryError) as error:
        raise BadOutputError(f"the pricer left a directory that cannot be read: {type(error).__name__}") from None
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise BadOutputError(f"the pricer left directories that are too deep: {error.strerror}") from None
    return sorted((f for f in found if f.path != input_path or f.mark != input_mark), key=lambda file: file.name)


def _holds_nothing_else(directory: JobDirectory, input_mark: tuple[int, int]) -> bool:
    """Whether the untouched input, and it can serve again, is all that lies in a directory."""
    with os.scandir(directory.where) as entries:
        found = list(entries)
    if len(found) != 1 or found[0].name != directory.input:
        return False
    status = found[0].stat(follow_symlinks=False)
    return is_as_new(status, KEPT_INPUT) and (status.st_size, status.st_mtime_ns) == input_mark


def mark(path: str | Path) -> tuple[int, int]:
    """What tells an untouched file from a changed one: its size and modification time (nanoseconds)."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _not_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return True
    return False


def _walk(directory: str, prefix: str, found: list[OutputFile], skip: str) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = prefix + entry.name
            if not name.isprintable() or (not name.isascii() and _not_utf8(name)):
                raise BadOutputError(f"the pricer left a file whose name is not printable text: {name!r}")
            if len(found) >= MOST_FILES:
                raise BadOutputError(f"the pricer left more than {MOST_FILES} files; pack them into one")
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                found.append(OutputFile(name, entry.path, status.st_size, status.st_mtime_ns))
            elif stat.S_ISDIR(status.st_mode):
                if entry.path != skip:
                    _walk(entry.path, name + "/", found, skip)
            else:
                kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a special file"
                raise BadOutputError(f"the pricer left {kind}, {name!r}; only regular files can be part of a result")
