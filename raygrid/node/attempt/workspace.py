"""The directories of one life of a node agent: for jobs, reuse, temporary files and shared data.

`directory.py` has the directory of one attempt. Each life has its own directories, so that the reaper of an earlier
life, which may still run, cannot remove those of this life.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from pathlib import Path

from raygrid.models import AttemptId
from raygrid.node.attempt.captures import CapturePool
from raygrid.node.attempt.directory import JobDirectory, OpenDirectory
from raygrid.node.attempt.jobs_directory import JobsDirectory
from raygrid.node.attempt.safe_paths import remove_tree
from raygrid.node.attempt.spare_directories import SpareDirectories, SpareDirectory
from raygrid.node.attempt.usage import RemainingWriters

SANDBOXES, TEMPORARY = "box", "tmp"  # short, because the path of a socket must fit into 107 bytes
_SHORT = 8  # letters of a life's name that identify it where paths must be short
DISK_RESERVE = 64 * 1024**2  # with fewer bytes free, a node takes no work


def short(incarnation: str) -> str:
    """A life's name for short paths."""
    return incarnation[:_SHORT]


class Workspace:
    """The directories of one life of an agent (`incarnation`) under the node's directory (`root`)."""

    def __init__(self, root: Path, incarnation: str) -> None:
        self.root = root
        self._root = str(root)
        self.shared = root / "data"
        self.jobs = root / "jobs" / incarnation
        self.spare = root / "spare" / incarnation
        self.temporary = root / TEMPORARY / short(incarnation)
        self.sandboxes = root / SANDBOXES / short(incarnation)
        self._spares = SpareDirectories(self.spare)
        self._captures = CapturePool(str(self.spare))
        self._jobs = str(self.jobs)
        self.without_sandbox = JobsDirectory(root, self.jobs, self.temporary)
        self._numbers = itertools.count(1)

    @property
    def of_this_life(self) -> tuple[Path, ...]:
        """The directories for attempts; each life of the agent has its own."""
        return self.jobs, self.spare, self.temporary, self.sandboxes

    def open(self) -> None:
        """Make the directories and remove the jobs of earlier lives."""
        self.root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for directory in (self.root, self.shared, *(each.parent for each in self.of_this_life), *self.of_this_life):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o700)
        for mine in self.of_this_life:
            for earlier in mine.parent.iterdir():
                if earlier != mine:
                    with contextlib.suppress(OSError):
                        remove_tree(earlier)
        self.without_sandbox.open()
        self.without_sandbox.temporaries.open()
        self._spares.open()
        self._captures.open()

    def close(self) -> None:
        """Close all descriptors, after the last attempt."""
        self._spares.close()
        self._captures.close()
        self.without_sandbox.close()

    def of_a_sandbox(self) -> JobsDirectory:
        """Make a directory for the jobs of one sandbox; `remove_sandbox` follows.

        Its temporary files are in it as well: programs rename these into their results, and a file cannot be renamed
        from one mount to another.

        Raises:
            OSError: the disk refuses it.
        """
        path = self.sandboxes / str(next(self._numbers))
        made = JobsDirectory(self.root, path, path / TEMPORARY)
        made.open()
        (path / TEMPORARY).mkdir(mode=0o700, exist_ok=True)
        made.temporaries.open()
        made.captures.open()
        return made

    @staticmethod
    def remove_sandbox(directory: JobsDirectory) -> None:
        """Remove the directory of a sandbox that no attempt uses."""
        directory.close()
        with contextlib.suppress(OSError):  # what cannot be removed now is removed when the agent ends
            remove_tree(directory.path)

    def create(self, attempt: AttemptId, *, by_name: bool = False, within: JobsDirectory | None = None) -> JobDirectory:
        """Make the directory of an attempt, or reuse one; OSError if the disk refuses it.

        `by_name` states whether the pricer opens its captures by name; `within` is the directory of its sandbox.
        """
        jobs = within or self.without_sandbox
        spare = self._spares.take(jobs.path, attempt.name, jobs.descriptor)
        if spare is not None and spare.handle.status_in_place() is None:
            spare.handle.close()
            spare = None
        handle, input_name = spare or SpareDirectory(jobs.make(attempt.name), None)
        try:
            # The node's own captures are hidden in a sandbox.
            pool = within.captures if by_name and within not in (None, self.without_sandbox) else self._captures
            captures = pool.take(handle.path, handle.dir_fd, by_name=by_name)
            try:
                temporary = jobs.temporaries.take(handle.path, handle.dir_fd)
            except BaseException:
                captures.delete()
                raise
        except BaseException:
            handle.remove()
            raise
        unseen = OpenDirectory(self._jobs, self.without_sandbox.descriptor)
        return JobDirectory(handle, captures, pool, temporary, jobs.temporaries, unseen, input_name)

    def remove(self, directory: JobDirectory) -> None:
        """Remove everything of an attempt, even if the pricer removed permissions, or keep it for a later attempt."""
        unused = directory.writers is RemainingWriters.NONE
        if unused:
            directory.capture_pool.give_back(directory.captures)
        else:
            directory.captures.delete()
        directory.temporaries.give_back(directory.temporary, directory.writers)
        if not (unused and self._spares.keep(directory)):
            directory.handle.remove()

    def without_paths(self, text: str) -> str:
        """A message for clients, with paths in a job directory made relative to it."""
        if self._root not in text:
            return text
        jobs = rf"(?:{re.escape(self._jobs)}|{re.escape(str(self.sandboxes))}/\d+)"
        text = re.sub(rf"{jobs}/[^/\s'\"]+/", "", text)
        text = re.sub(rf"{jobs}/[^/\s'\":;,]+", "the job directory", text)
        return re.sub(jobs, "the jobs directory", text)

    def free_bytes(self) -> int:
        """Free bytes on the workspace's disk."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize

    def why_full(self, free: int) -> str | None:
        """Why the node takes no work with so many free bytes; None if they are enough."""
        return None if free >= DISK_RESERVE else f"its disk is nearly full: {free} bytes free at {self.root}"
