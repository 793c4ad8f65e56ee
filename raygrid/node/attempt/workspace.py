"""The directories of one life of a node agent: job directories, spare ones, temporary ones, and copies of shared data.

`directory.py` has what belongs to one attempt. Each life has directories of its own, so that the reaper of an earlier
life, which may still be at work, cannot remove anything of this one.
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
from raygrid.node.attempt.directory import HeldDirectory, JobDirectory
from raygrid.node.attempt.remaining_writers import RemainingWriters
from raygrid.node.attempt.safe_paths import open_directory, remove, remove_tree
from raygrid.node.attempt.spare_directories import SpareDirectories, SpareDirectory
from raygrid.node.attempt.temporary_files import TemporaryDirectories

_SHORT = 8  # letters of a life's name that tell it from others where paths must be short
DISK_RESERVE = 64 * 1024**2  # with less room than this a node takes no work


class Workspace:
    """The directories of one life of an agent, under the node's root; no other agent writes there.

    Args:
        root: the node's directory.
        incarnation: the name of this life.
    """

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
        self._jobs_descriptors: list[int] = []  # the last one is of the present jobs directory
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
        """Close all descriptors; no attempt is left by then."""
        self._spares.close()
        self._captures.close()
        self._temporaries.close()
        while self._jobs_descriptors:
            os.close(self._jobs_descriptors.pop())

    def create(self, attempt: AttemptId, *, by_name: bool = False) -> JobDirectory:
        """Make the directory of an attempt, or take over a spare one.

        Args:
            attempt: the attempt.
            by_name: whether its pricer opens the files for its output by name.

        Raises:
            OSError: the disk refuses it.
        """
        name = f"{attempt.job_id}.{attempt.number}"
        spare = self._spares.take(self._jobs, name, self._jobs_descriptors[-1])
        if spare is not None and spare.held.status_in_place() is None:
            spare.held.close()
            spare = None
        held, input_name = spare or SpareDirectory(self.make(name), None)
        try:
            captures = self._captures.take(held.where, held.within, by_name=by_name)
            try:
                temporary = self._temporaries.take(held.where, held.within)
            except BaseException:
                captures.delete()
                raise
        except BaseException:
            self.remove_held(held)
            raise
        return JobDirectory(held, captures, temporary, input_name)

    def make(self, name: str) -> HeldDirectory:
        """Make an empty directory beside those of attempts; where the jobs directory is gone, make that, too.

        Raises:
            OSError: the disk refuses it, or something takes the place of the node's directories.
        """
        for _ in range(2):
            with contextlib.suppress(FileNotFoundError):  # a pricer may have removed the jobs directory
                held = HeldDirectory.make(self._jobs, name, self._jobs_descriptors[-1])
                if held.status_in_place() is not None:
                    return held
                self.remove_held(held)  # a pricer put something else in the place of the jobs directory
            self._open_jobs()
        raise OSError(errno.ELOOP, "something was put in the place of the node's directories", f"{self._jobs}/{name}")

    def _open_jobs(self) -> None:
        """Open the jobs directory; where a pricer removed it, or put a link or a file in its place, make it again.

        The earlier descriptors stay open, because attempts may still be in the directories that they lead to.
        """
        with self._lock:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            at = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the settings may name a link
            for part in self.jobs.relative_to(self.root).parts:
                around = at
                try:
                    at = _own_directory(part, around)
                finally:
                    os.close(around)
            self._jobs_descriptors.append(at)

    def remove(self, directory: JobDirectory) -> None:
        """Remove everything of an attempt, whatever modes the pricer set, or keep it for a later attempt.

        Raises:
            OSError: the disk refuses it.
        """
        unused = directory.writers is RemainingWriters.NONE
        if unused:
            self._captures.give_back(directory.captures)
        else:
            directory.captures.delete()
        self._temporaries.give_back(directory.temporary, directory.writers)
        if not (unused and self._spares.keep(directory)):
            self.remove_held(directory.held)

    @staticmethod
    def remove_held(held: HeldDirectory) -> None:
        """Remove a directory with all that is in it, and close it."""
        try:
            # Most pricers leave a few files: far quicker than `remove_tree`, which must expect anything.
            if not held.has_its_name():  # what has its name now is something else
                raise NotADirectoryError
            with os.scandir(held.descriptor) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                os.unlink(name, dir_fd=held.descriptor)
            os.rmdir(held.name, dir_fd=held.within)
        except OSError:
            with contextlib.suppress(OSError):  # what a daemon still writes to is removed when the agent ends
                remove(held.name, held.within)
        finally:
            held.close()

    def without_paths(self, text: str) -> str:
        """A message for clients: paths in a job directory become relative to it."""
        if self._jobs not in text:
            return text
        text = re.sub(rf"{re.escape(self._jobs)}/[^/\s'\"]+/", "", text)
        text = re.sub(rf"{re.escape(self._jobs)}/[^/\s'\":;,]+", "the job directory", text)
        return text.replace(self._jobs, "the jobs directory")

    def free_bytes(self) -> int:
        """Free room on the workspace's disk."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize


def _own_directory(name: str, within: int) -> int:
    """Open a directory of the node itself; what a pricer put in its place is removed, and the directory made again."""
    try:
        return open_directory(name, within)
    except FileNotFoundError:
        pass
    except (NotADirectoryError, PermissionError):
        remove(name, within)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        remove(name, within)
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=within)
    return open_directory(name, within)
