"""Job directories: one an attempt, made before the pricer runs and removed after.

A job directory is the pricer's working directory and `{output_dir}`: the input lies in it under its own name, shared
inputs under `data/`, and whatever else is in it afterwards is the result. What the pricer prints is captured in two
files beside the directory, where the pricer's own files cannot collide with them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from raygrid.models import AttemptId
from raygrid.node.attempt.captures import Capture, CapturePool
from raygrid.node.attempt.safe_paths import (
    BadOutputError,
    descend,
    is_as_new,
    open_directory,
    read_file,
    remove,
    remove_tree,
)
from raygrid.node.attempt.spare_directories import KEPT_INPUT, JobDirectory, Spares
from raygrid.node.attempt.temporary_files import TemporaryPool
from raygrid.system import system_calls
from raygrid.system.filenames import problem_of

_SHORT = 8  # letters of a life's name that are enough to tell it from others, where paths must be short
MOST_FILES = 100_000
MOST_DEPTH = 500  # of directories in each other
MOST_PATH = 4_000  # characters of a name in the result
DISK_RESERVE = 64 * 1024**2  # with less room than this a node takes no work


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file that a pricer wrote, as it was seen once the pricer had ended.

    Attributes:
        name: its path in the result.
        path: where it is, from the directory `within`, of which this is an open descriptor.
        size: its bytes; no more are read of it, should it grow.
        changed_ns: when it was modified.
        held: a descriptor of the file itself, where the node has one; then its path does not matter.
    """

    name: str
    within: int
    path: str
    size: int
    changed_ns: int = 0
    held: int = -1

    @property
    def mark(self) -> tuple[int, int]:
        """See the function `mark`."""
        return self.size, self.changed_ns

    def open(self) -> IO[bytes]:
        """Open it to be read.

        Raises:
            BadOutputError: something else took its place meanwhile.
            OSError: it cannot be read.
        """
        if self.held >= 0:
            # Anew: from its beginning, and whatever the pricer set for the file that it had.
            return open(f"/proc/self/fd/{self.held}", "rb")
        return read_file(self.path, self.within)


class Workspace:
    """The directory of one life of a node agent, under the node's root; nobody else writes here.

    Each life has its own jobs directory, so that the reaper of an earlier life, which may still be at work, cannot
    remove anything of this one.
    """

    def __init__(self, root: Path, incarnation: str) -> None:
        self.root = root
        self._root = str(root)
        self.shared = root / "data"
        self.jobs = root / "jobs" / incarnation
        self.spare = root / "spare" / incarnation
        self._spares = Spares(self.spare)
        self._captures = CapturePool(str(self.spare))
        self.temporary = root / "tmp" / incarnation[:_SHORT]
        self._temporaries = TemporaryPool(self.temporary)
        self._jobs = str(self.jobs)
        self._held: list[int] = []  # descriptors of the jobs directory; the last one is that of now
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
        self._hold()
        self._spares.open()
        self._captures.open()
        self._temporaries.open()

    def close(self) -> None:
        """Hold nothing open any more; no attempt is left by then."""
        self._spares.close()
        self._captures.close()
        self._temporaries.close()
        while self._held:
            os.close(self._held.pop())

    def create(self, attempt: AttemptId) -> JobDirectory:
        """Make the directory of an attempt, or take over one that is as good as new."""
        name = f"{attempt.job_id}.{attempt.number}"
        directory = JobDirectory.at(self._jobs, name, self._held[-1])
        if not self._spares.take(directory) or directory.in_place() is None:
            directory.close()
            directory = self.make(name)
        try:
            directory.captures = self._captures.take(directory.where, directory.within)
            directory.temporary = self._temporaries.take(directory.where, directory.within)
        except BaseException:
            self.remove(directory)
            raise
        return directory

    def make(self, name: str) -> JobDirectory:
        """Make an empty directory beside those of attempts, and whatever of the node's own is no longer there."""
        directory = JobDirectory.at(self._jobs, name, self._held[-1])
        with contextlib.suppress(FileNotFoundError):  # a pricer may have removed more than its own
            self._make(directory)
        if directory.in_place() is None:  # or have put something else there
            self.remove(directory)
            self._hold()
            directory = JobDirectory.at(self._jobs, name, self._held[-1])
            self._make(directory)
            if directory.in_place() is None:
                self.remove(directory)
                raise OSError(errno.ELOOP, "something was put in the place of the node's directories", directory.where)
        return directory

    def _make(self, directory: JobDirectory) -> None:
        try:
            os.mkdir(directory.name, dir_fd=directory.within)
        except FileExistsError:
            remove(directory.name, directory.within)
            os.mkdir(directory.name, dir_fd=directory.within)
        directory.hold(open_directory(directory.name, directory.within))

    def _hold(self) -> None:
        """Open the jobs directory, and make it anew where a pricer removed it or put a link or a file in its place.

        Earlier ones stay open: attempts may be in them still.
        """
        with self._lock:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            at = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # itself where its settings say
            for part in self.jobs.relative_to(self.root).parts:
                around = at
                try:
                    at = _made(part, around)
                finally:
                    os.close(around)
            self._held.append(at)

    def write_input(self, directory: JobDirectory, name: str, data: bytes) -> tuple[int, int]:
        """Write an attempt's input, over that of an earlier one where there is one; gives its mark."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        if directory.input is not None and directory.input != name:
            os.rename(directory.input, name, src_dir_fd=directory.held, dst_dir_fd=directory.held)
        directory.input = name
        file = os.open(name, flags, 0o666, dir_fd=directory.held)
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
            os.unlink(directory.input, dir_fd=directory.held)
            directory.input = None

    def remove(self, directory: JobDirectory) -> None:
        """Remove everything of an attempt, whatever the pricer did to its permissions, or keep it for the next one."""
        if (captures := directory.captures) is not None:
            directory.captures = None
            if directory.is_left_alone:
                self._captures.give_back(captures)
            else:
                captures.drop()
        if directory.temporary is not None:
            self._temporaries.give_back(
                directory.temporary, is_left_alone=directory.is_left_alone, is_warm=directory.is_warm
            )
            directory.temporary = None
        if directory.is_left_alone and self._spares.keep(directory):
            return
        try:
            # Most pricers leave a few files: far quicker than `remove_tree`, which must expect anything.
            if not directory.is_named():  # what is there by now is not what was made
                raise NotADirectoryError
            with os.scandir(directory.held) as entries:
                names = [entry.name for entry in entries]
            for name in names:
                os.unlink(name, dir_fd=directory.held)
            os.rmdir(directory.name, dir_fd=directory.within)
        except OSError:
            with contextlib.suppress(OSError):  # what a daemon still writes into goes with the agent's life
                remove(directory.name, directory.within)
        finally:
            directory.close()

    def without_paths(self, text: str) -> str:
        """A message for clients: paths in a job directory begin there, as for the pricer."""
        if self._jobs not in text:
            return text
        text = re.sub(rf"{re.escape(self._jobs)}/[^/\s'\"]+/", "", text)
        text = re.sub(rf"{re.escape(self._jobs)}/[^/\s'\":;,]+", "the job directory", text)
        return text.replace(self._jobs, "the jobs directory")

    def free_bytes(self) -> int:
        """Free room on the workspace's disk."""
        disk = os.statvfs(self._root)
        return disk.f_bavail * disk.f_frsize


def _made(name: str, within: int) -> int:
    """Open a directory of the node's own, made anew where something else is in its place."""
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


def outputs(directory: JobDirectory, input_mark: tuple[int, int]) -> list[OutputFile]:
    """The files that a pricer wrote, in name order: all regular files but the untouched input and the shared data.

    Args:
        directory: the attempt's directory.
        input_mark: size and modification time of its input before the run; changed by the pricer, that is an output.

    Raises:
        BadOutputError: something else than a regular file or directory is there, such as a symbolic link.
        OSError: not this directory, but one around it is not where it was: that need not be this pricer's doing.
    """
    if (status := directory.in_place()) is None:
        _find_out_why(directory)
    try:
        if _holds_nothing_else(directory, input_mark):
            if status is not None and directory.is_left_alone:
                directory.bare_mode = status.st_mode
            return []
        found = _walk(directory.held)
    except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
        raise BadOutputError(f"the pricer left a directory that cannot be read: {type(error).__name__}") from None
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise BadOutputError(f"the pricer left directories that cannot be read: {error.strerror}") from None
    files = sorted((f for f in found if f.name != directory.input or f.mark != input_mark), key=lambda file: file.name)
    _require_one_name_each(files)
    return files


def _require_one_name_each(files: list[OutputFile]) -> None:
    """Refuse two files that would have one name in the ZIP, where a backslash is written as `%5C`."""
    odd = {file.name.replace("\\", "%5C"): file.name for file in files if "\\" in file.name}
    for file in files if odd else ():
        if (other := odd.get(file.name, file.name)) != file.name:
            raise BadOutputError(f"the pricer left {other!r} and {file.name!r}, which have one name in a ZIP")


def _find_out_why(directory: JobDirectory) -> None:
    """Say what became of a job directory that is not where it was made."""
    if directory.is_named():
        raise OSError(errno.ENOTDIR, "the node's jobs directory was replaced meanwhile", directory.where)
    try:
        mode = os.stat(directory.name, dir_fd=directory.within, follow_symlinks=False).st_mode
    except FileNotFoundError as error:
        raise BadOutputError(
            f"the job directory cannot be read: {type(error).__name__}; the pricer removed it"
        ) from None
    raise BadOutputError(f"the pricer put {_kind(mode)} in the place of its job directory")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "another directory"
    return "a symbolic link" if stat.S_ISLNK(mode) else "a file" if stat.S_ISREG(mode) else "a special file"


def captured(capture: Capture, *, by_name: bool) -> OutputFile:
    """What an attempt printed to one of its captures.

    Args:
        capture: the capture.
        by_name: whether the pricer opened it by its name: then what has that name counts, and nothing if nothing has.

    Raises:
        BadOutputError: the pricer put something else in its place.
    """
    if not by_name:
        return OutputFile(capture.title, -1, "", system_calls.size_of(capture.file), held=capture.file)
    try:
        status = os.stat(capture.name, dir_fd=capture.within, follow_symlinks=False)
    except FileNotFoundError:
        return OutputFile(capture.title, capture.within, capture.name, 0)
    if not stat.S_ISREG(status.st_mode):
        what = capture.title.partition(".")[0]
        raise BadOutputError(f"the pricer put {_kind(status.st_mode)} in the place of its {what}")
    return OutputFile(capture.title, capture.within, capture.name, status.st_size)


def _holds_nothing_else(directory: JobDirectory, input_mark: tuple[int, int]) -> bool:
    """Whether the untouched input, and it can serve again, is all that lies in a directory."""
    with os.scandir(directory.held) as entries:
        found = list(entries)
    if len(found) != 1 or found[0].name != directory.input:
        return False
    status = found[0].stat(follow_symlinks=False)
    return is_as_new(status, KEPT_INPUT) and (status.st_size, status.st_mtime_ns) == input_mark


def mark(path: str | Path) -> tuple[int, int]:
    """What tells an untouched file from a changed one: its size and modification time (nanoseconds)."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _walk(top: int) -> list[OutputFile]:
    """All files below a directory but those of the shared data."""
    found: list[OutputFile] = []
    waiting, directories = [""], 0
    while waiting:
        prefix = waiting.pop()
        if prefix.count("/") > MOST_DEPTH or len(prefix) > MOST_PATH:
            raise BadOutputError(f"the pricer left directories that are too deep: more than {MOST_DEPTH} levels")
        directories += 1
        directory = descend(top, prefix[:-1])
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if (inner := _sorted_out(entry, prefix, top, found)) is not None:
                        waiting.append(inner)
                    if len(found) + directories + len(waiting) > MOST_FILES:
                        raise BadOutputError(f"the pricer left more than {MOST_FILES} files; pack them into one")
        finally:
            os.close(directory)
    return found


def _sorted_out(entry: os.DirEntry[str], prefix: str, top: int, found: list[OutputFile]) -> str | None:
    """Note a file; gives a directory's prefix, which is to be looked into."""
    name = prefix + entry.name
    if (problem := problem_of(name)) is not None:
        raise BadOutputError(f"the pricer left a file whose name {problem}: {name!r}")
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        found.append(OutputFile(name, top, name, status.st_size, status.st_mtime_ns))
        return None
    if stat.S_ISDIR(status.st_mode):
        return None if name == "data" else f"{name}/"
    what = _kind(status.st_mode)
    raise BadOutputError(f"the pricer left {what}, {name!r}; only regular files can be part of a result")
