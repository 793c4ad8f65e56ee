"""A directory in which job directories are made: one for a whole node, and one for each sandbox."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

from raygrid.node.attempt.captures import CapturePool
from raygrid.node.attempt.directory import DirectoryHandle
from raygrid.node.attempt.safe_paths import has_attributes, open_directory, remove
from raygrid.node.attempt.temporary_files import TemporaryDirectories

_MODE = 0o700


class JobsDirectory:
    """The directory at `path`, below `root`, and the one for temporary files of its jobs; thread-safe.

    Attributes:
        temporaries: the directories for temporary files of its jobs.
        captures: captures that pricers in its sandbox can open by name.
        times_made: how often it was opened; a pricer without a sandbox can remove or replace it, and then it is made
            again.
    """

    def __init__(self, root: Path, path: Path, temporary: Path) -> None:
        self._root = root
        self._parts = path.relative_to(root).parts
        self.path = str(path)
        self.temporaries = TemporaryDirectories(temporary)
        self.captures = CapturePool(self.path)
        self.times_made = 0
        self._descriptors: list[int] = []  # the last one belongs to the current directory
        self._lock = threading.Lock()

    @property
    def descriptor(self) -> int:
        """An open descriptor of it."""
        return self._descriptors[-1]

    def open(self) -> None:
        """Open it, and make it if it does not exist or was replaced.

        The earlier descriptors stay open, because attempts may still use their directories.
        """
        with self._lock:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The settings may name a link.
            directory = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for part in self._parts:
                parent = directory
                try:
                    directory = _own_directory(part, parent)
                finally:
                    os.close(parent)
            self._descriptors.append(directory)
            self.times_made += 1

    def close(self) -> None:
        """Close all descriptors, after the last attempt."""
        self.temporaries.close()
        self.captures.close()
        while self._descriptors:
            os.close(self._descriptors.pop())

    def unlock(self) -> None:
        """Give this node all permissions on it again, which a pricer may have removed."""
        for descriptor in (self.descriptor, self.temporaries.descriptor):
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != _MODE:
                os.fchmod(descriptor, _MODE)

    def is_as_new(self) -> bool:
        """Whether it contains only its temporary directories, and these are unused; False if that cannot be seen."""
        try:
            with os.scandir(self.descriptor) as entries:
                names = [entry.name for entry in entries]
            return (
                names == [os.path.basename(self.temporaries.path)]
                and self.temporaries.are_unused()
                and not has_attributes(self.descriptor)
                and not has_attributes(self.temporaries.descriptor)
            )
        except OSError:
            return False

    def make(self, name: str) -> DirectoryHandle:
        """Make an empty directory in it.

        Raises:
            OSError: the disk refuses it, or the node's directories are being replaced.
        """
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):  # a pricer may have removed the jobs directory
                handle = DirectoryHandle.make(self.path, name, self.descriptor)
                if handle.status_in_place() is not None:
                    return handle
                handle.remove()  # a pricer replaced the jobs directory
            self.open()
        raise OSError(errno.ELOOP, "the node's directories were replaced", f"{self.path}/{name}")


def _own_directory(name: str, dir_fd: int) -> int:
    """Open a directory of the node itself; if a pricer replaced it, remove the replacement and make it again."""
    try:
        return open_directory(name, dir_fd)
    except FileNotFoundError:
        pass
    except (NotADirectoryError, PermissionError):
        remove(name, dir_fd)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        remove(name, dir_fd)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, _MODE, dir_fd=dir_fd)
    return open_directory(name, dir_fd)
