"""The directory of one attempt: input, output files, captured output and temporary files.

A job directory is the pricer's working directory and `{output_dir}`. It contains the input under its own name and
shared inputs under `data/`; all other files in it belong to the result. Captured output and temporary files are
elsewhere, so that they cannot collide with the pricer's files. `workspace.py` makes and removes these directories.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from raygrid.node.attempt.captures import CapturePool, Captures
from raygrid.node.attempt.outputs import FileMark, OutputFile, find_outputs
from raygrid.node.attempt.safe_paths import (
    BadOutputError,
    has_attributes,
    is_reusable,
    kind,
    make_directory,
    open_directory,
    remove,
)
from raygrid.node.attempt.temporary_files import TemporaryDirectories, TemporaryDirectory
from raygrid.node.attempt.usage import RemainingWriters

REUSABLE_INPUT = 64 * 1024  # a larger input is removed with its job; a smaller one is overwritten by the next


class OpenDirectory(NamedTuple):
    """A directory of the node: its path, and an open descriptor."""

    path: str
    descriptor: int


@dataclass(slots=True)
class DirectoryHandle:
    """A directory that the node made and keeps open, so that it detects a replacement under the same name.

    Attributes:
        name: its name in its parent directory, which `dir_fd` has open.
        descriptor: an open descriptor of the directory itself.
        identity: its device and inode.
    """

    path: str
    name: str
    dir_fd: int
    descriptor: int
    identity: tuple[int, int]

    @staticmethod
    def make(place: str, name: str, dir_fd: int) -> DirectoryHandle:
        """Make an empty directory `name` in the directory at `place`, replacing what has that name.

        Raises:
            OSError: the disk refuses it; FileNotFoundError if the parent was removed.
        """
        make_directory(name, dir_fd)
        descriptor = open_directory(name, dir_fd)
        status = os.fstat(descriptor)
        return DirectoryHandle(f"{place}/{name}", name, dir_fd, descriptor, (status.st_dev, status.st_ino))

    def moved_to(self, place: str, name: str, dir_fd: int) -> DirectoryHandle:
        """Rename it, or raise OSError; return it under its new name. Do not use this object afterwards."""
        os.rename(self.name, name, src_dir_fd=self.dir_fd, dst_dir_fd=dir_fd)
        return DirectoryHandle(f"{place}/{name}", name, dir_fd, self.descriptor, self.identity)

    def status_in_place(self) -> os.stat_result | None:
        """The status of what is at its path, without following a final link; None unless that is this directory."""
        return self._same(lambda: os.lstat(self.path))

    def has_its_name(self) -> bool:
        """Whether this directory still has its name in its parent, even if the parent was moved."""
        return self._same(lambda: os.stat(self.name, dir_fd=self.dir_fd, follow_symlinks=False)) is not None

    def _same(self, look: Callable[[], os.stat_result]) -> os.stat_result | None:
        try:
            status = look()
        except OSError:
            return None
        return status if (status.st_dev, status.st_ino) == self.identity else None

    def remove(self) -> None:
        """Remove it with all that is in it, as far as possible, and close it."""
        try:
            # For the few files that most pricers leave, this is far quicker than `remove_tree`.
            if not self.has_its_name():  # it was replaced
                raise NotADirectoryError
            with os.scandir(self.descriptor) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                os.unlink(name, dir_fd=self.descriptor)
            os.rmdir(self.name, dir_fd=self.dir_fd)
        except OSError:
            with contextlib.suppress(OSError):  # what cannot be removed now is removed when the agent ends
                remove(self.name, self.dir_fd)
        finally:
            self.close()

    def close(self) -> None:
        """Close its descriptor."""
        os.close(self.descriptor)


class JobDirectory:
    """The directory of one attempt, with its parts. Used by one thread at a time; only its own methods change it.

    Attributes:
        capture_pool, temporaries: where `captures` and `temporary` were taken from.
        unseen: for what the node makes of its files, such as a large ZIP; no sandbox shows it, and it outlives them.
        input_name: the name of the input in it; before `write_input`, perhaps the input of an earlier attempt.
        writers: the processes that may still write into it.
    """

    __slots__ = (
        "_input_changed_ns",
        "_input_mark",
        "_input_only_mode",
        "capture_pool",
        "captures",
        "handle",
        "input_name",
        "temporaries",
        "temporary",
        "unseen",
        "writers",
    )

    def __init__(
        self,
        handle: DirectoryHandle,
        captures: Captures,
        capture_pool: CapturePool,
        temporary: TemporaryDirectory,
        temporaries: TemporaryDirectories,
        unseen: OpenDirectory,
        input_name: str | None = None,
    ) -> None:
        self.handle = handle
        self.captures = captures
        self.capture_pool = capture_pool
        self.temporary = temporary
        self.temporaries = temporaries
        self.unseen = unseen
        self.input_name = input_name
        self.writers = RemainingWriters.UNKNOWN
        self._input_mark: FileMark | None = None
        self._input_changed_ns = 0  # its time of change when it was written; permissions and attributes change it, too
        self._input_only_mode: int | None = None  # its mode, if only the unchanged input was found in it

    @property
    def path(self) -> Path:
        """Its path."""
        return Path(self.handle.path)

    @property
    def data(self) -> Path:
        """Its subdirectory for shared inputs."""
        return Path(self.handle.path, "data")

    def path_of(self, name: str) -> str:
        """The path of a file in it."""
        return f"{self.handle.path}/{name}"

    # --- the input --------------------------------------------------------------------------------------------------

    def write_input(self, name: str, data: bytes) -> None:
        """Write the attempt's input, overwriting that of an earlier attempt; OSError if the disk refuses it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        top = self.handle.descriptor
        if self.input_name is not None and self.input_name != name:
            os.rename(self.input_name, name, src_dir_fd=top, dst_dir_fd=top)
        self.input_name = name
        file = os.open(name, flags, 0o666, dir_fd=top)
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
        self._input_mark = FileMark.of(status)
        self._input_changed_ns = status.st_ctime_ns

    def fetch_input(self, name: str, fetch: Callable[[Path], object]) -> None:
        """Remove the input of an earlier attempt, and call `fetch` to write the attempt's input to a path."""
        if self.input_name is not None:
            os.unlink(self.input_name, dir_fd=self.handle.descriptor)
            self.input_name = None
        path = self.path / name
        fetch(path)
        self.input_name = name
        status = os.stat(path)
        self._input_mark = FileMark.of(status)
        self._input_changed_ns = status.st_ctime_ns

    # --- after the run ----------------------------------------------------------------------------------------------

    def pricer_ended(self, writers: RemainingWriters) -> None:
        """Note which processes may still write into it; call this before `outputs`."""
        self.writers = writers

    def outputs(self) -> list[OutputFile]:
        """The files that the pricer wrote, in name order: all regular files but the unchanged input and shared data.

        Raises:
            BadOutputError: it contains something else than regular files and directories, such as a symbolic link.
            OSError: a parent directory was replaced, possibly by another pricer.
        """
        if (status := self.handle.status_in_place()) is None:
            self._raise_for_missing()
        try:
            if self._has_only_unchanged_input():
                if status is not None and self.writers is RemainingWriters.NONE:
                    self._input_only_mode = status.st_mode
                return []
            return find_outputs(self.handle.descriptor, self.input_name, self._input_mark)
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            raise BadOutputError(f"the pricer left a directory that cannot be read: {type(error).__name__}") from None
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
                raise
            raise BadOutputError(f"the pricer left directories that cannot be read: {error.strerror}") from None

    def _has_only_unchanged_input(self) -> bool:
        with os.scandir(self.handle.descriptor) as entries:
            found = list(entries)
        if len(found) != 1 or found[0].name != self.input_name:
            return False
        status = found[0].stat(follow_symlinks=False)
        return self._can_reuse(status) and FileMark.of(status) == self._input_mark

    def _can_reuse(self, input_status: os.stat_result) -> bool:
        """Whether the next attempt finds nothing of this one in its input: no permissions and no attributes either."""
        return is_reusable(input_status, REUSABLE_INPUT) and input_status.st_ctime_ns == self._input_changed_ns

    def _raise_for_missing(self) -> None:
        """Raise an error that states why the job directory is not at its path."""
        if self.handle.has_its_name():
            raise OSError(errno.ENOTDIR, "the node's jobs directory was replaced", self.handle.path)
        try:
            mode = os.stat(self.handle.name, dir_fd=self.handle.dir_fd, follow_symlinks=False).st_mode
        except FileNotFoundError as error:
            raise BadOutputError(
                f"the job directory cannot be read: {type(error).__name__}; the pricer removed it"
            ) from None
        raise BadOutputError(f"the pricer replaced its job directory by {kind(mode)}")

    def clear(self, mode: int) -> bool:
        """Remove all files but a small input, so that another attempt can use the directory.

        False or OSError if it is not as good as a new directory, which has this mode; then some files may be left.
        """
        if has_attributes(self.handle.descriptor):
            return False
        if self._input_only_mode is not None:
            return self._input_only_mode == mode
        if not self.handle.has_its_name() or os.fstat(self.handle.descriptor).st_mode != mode:
            return False
        reusable = None
        with os.scandir(self.handle.descriptor) as entries:
            found = list(entries)
        for entry in found:
            if entry.name == self.input_name and self._can_reuse(entry.stat(follow_symlinks=False)):
                reusable = entry.name
            else:
                os.unlink(entry.name, dir_fd=self.handle.descriptor)
        self.input_name = reusable
        return True
