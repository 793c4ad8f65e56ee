"""The directories of one life of a node agent: for jobs, reuse, temporary files and shared data.

`directory.py` has the directory of one attempt. Each life has its own directories, so that the reaper of an earlier
life, which may still run, cannot remove those of this life.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from pathlib import Path

from raygrid.models import AttemptId
from raygrid.node.attempt.captures import CapturePool
from raygrid.node.attempt.directory import DirectoryHandle, JobDirectory
from raygrid.node.attempt.safe_paths import open_directory, remove, remove_tree
from raygrid.node.attempt.spare_directories import SpareDirectories, SpareDirectory
from raygrid.node.attempt.temporary_files import TemporaryDirectories
from raygrid.node.attempt.usage import RemainingWriters

_SHORT = 8  # letters of a life's name that identify it where paths must be short
DISK_RESERVE = 64 * 1024**2  # with fewer bytes free, a node takes no work


class Workspace:
    """The directories of one life of an agent (`incarnation`) under the node's directory (`root`)."""

    def __init__(self, root: Path, incarnation: str) -> None:
        self.root = root
        self._root = str(root)
        self.shared = root / "data"
        self.jobs = root / "jobs" / incarnation
        self.spare = root / "spare" / incarnation
        self.temporary = root / "tmp" / incarnation[:_SHORT]
        self._spares = SpareDirectories(self.spare)
        self._captures = CapturePool(str(self.spare))
        self._temporaries = TemporaryDirectories(self.temporary)
        self._jobs = str(self.jobs)
        self._jobs_descriptors: list[int] = []  # the last one belongs to the current jobs directory
        self._lock = threading.Lock()

    def open(self) -> None:
        """Make the directories and remove the jobs of earlier lives."""
        self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        of_this_life = (self.jobs, self.spare, self.temporary)
        for directory in (self.root, self.shared, *(each.parent for each in of_this_life), *of_this_life):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o700)
        for mine in of_this_life:
            for earlier in mine.parent.iterdir():
                if earlier != mine:
                    with contextlib.suppress(OSError):
                        remove_tree(earlier)
        self._open_jobs()
        self._spares.open()
        self._captures.open()
        self._temporaries.open()

    def close(self) -> None:
        """Close all descriptors, after the last attempt."""
        self._spares.close()
        self._captures.close()
        self._temporaries.close()
        while self._jobs_descriptors:
            os.close(self._jobs_descriptors.pop())

    def create(self, attempt: AttemptId, *, by_name: bool = False) -> JobDirectory:
        """Make the directory of an attempt, or reuse one; OSError if the disk refuses it.

        `by_name` states whether the pricer opens its captures by name.
        """
        spare = self._spares.take(self._jobs, attempt.name, self._jobs_descriptors[-1])
        if spare is not None and spare.handle.status_in_place() is None:
            spare.handle.close()
            spare = None
        handle, input_name = spare or SpareDirectory(self.make(attempt.name), None)
        try:
            captures = self._captures.take(handle.path, handle.dir_fd, by_name=by_name)
            try:
                temporary = self._temporaries.take(handle.path, handle.dir_fd)
            except BaseException:
                captures.delete()
                raise
        except BaseException:
            self.remove_directory(handle)
            raise
        return JobDirectory(handle, captures, temporary, input_name)

    def make(self, name: str) -> DirectoryHandle:
        """Make an empty directory in the jobs directory, which is made again if a pricer removed or replaced it.

        Raises:
            OSError: the disk refuses it, or the node's directories are being replaced.
        """
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):  # a pricer may have removed the jobs directory
                handle = DirectoryHandle.make(self._jobs, name, self._jobs_descriptors[-1])
                if handle.status_in_place() is not None:
                    return handle
                self.remove_directory(handle)  # a pricer replaced the jobs directory
            self._open_jobs()
        raise OSError(errno.ELOOP, "the node's directories were replaced", f"{self._jobs}/{name}")

    def _open_jobs(self) -> None:
        """Open the jobs directory, and make it again if a pricer removed or replaced it.

        The earlier descriptors stay open, because attempts may still use their directories.
        """
        with self._lock:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The settings may name a link.
            directory = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for part in self.jobs.relative_to(self.root).parts:
                parent = directory
                try:
                    directory = _own_directory(part, parent)
                finally:
                    os.close(parent)
            self._jobs_descriptors.append(directory)

    def remove(self, directory: JobDirectory) -> None:
        """Remove everything of an attempt, even if the pricer removed permissions, or keep it for a later attempt."""
        unused = directory.writers is RemainingWriters.NONE
        if unused:
            self._captures.give_back(directory.captures)
        else:
            directory.captures.delete()
        self._temporaries.give_back(directory.temporary, directory.writers)
        if not (unused and self._spares.keep(directory)):
            self.remove_directory(directory.handle)

    @staticmethod
    def remove_directory(handle: DirectoryHandle) -> None:
        """Remove a directory with all that is in it, and close it."""
        try:
            # For the few files that most pricers leave, this is far quicker than `remove_tree`.
            if not handle.has_its_name():  # it was replaced
                raise NotADirectoryError
            with os.scandir(handle.descriptor) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                os.unlink(name, dir_fd=handle.descriptor)
            os.rmdir(handle.name, dir_fd=handle.dir_fd)
        except OSError:
            with contextlib.suppress(OSError):  # what cannot be removed now is removed when the agent ends
                remove(handle.name, handle.dir_fd)
        finally:
            handle.close()

    def without_paths(self, text: str) -> str:
        """A message for clients, with paths in a job directory made relative to it."""
        if self._jobs not in text:
            return text
        text = re.sub(rf"{re.escape(self._jobs)}/[^/\s'\"]+/", "", text)
        text = re.sub(rf"{re.escape(self._jobs)}/[^/\s'\":;,]+", "the job directory", text)
        return text.replace(self._jobs, "the jobs directory")

    def free_bytes(self) -> int:
        """Free bytes on the workspace's disk."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def why_full(self, free: int) -> str | None:
        """Why the node takes no work with so many free bytes; None if they are enough."""
        return None if free >= DISK_RESERVE else f"its disk is nearly full: {free} bytes free at {self.root}"


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
        os.mkdir(name, 0o700, dir_fd=dir_fd)
    return open_directory(name, dir_fd)
