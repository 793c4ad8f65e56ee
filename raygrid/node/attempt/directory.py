"""The directory of one attempt: its input, the files that the pricer leaves, its captured output, temporary files.

A job directory is the pricer's working directory and `{output_dir}`. The input lies in it under its own name, shared
inputs under `data/`; whatever else is in it afterwards is part of the result. Captured output and temporary files lie
elsewhere, where they cannot collide with the pricer's own files.

`workspace.py` makes and removes these directories; the steps of an attempt use them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from raygrid.node.attempt.captures import Captures
from raygrid.node.attempt.outputs import FileMark, OutputFile, find_outputs
from raygrid.node.attempt.remaining_writers import RemainingWriters
from raygrid.node.attempt.safe_paths import BadOutputError, is_reusable, kind, open_directory, remove
from raygrid.node.attempt.temporary_files import TemporaryDirectory

REUSABLE_INPUT = 64 * 1024  # a larger input is removed with its job; a smaller one is overwritten by the next


@dataclass(slots=True)
class HeldDirectory:
    """A directory that the node made and keeps open: whatever a pricer puts under its name, the node knows its own.

    Attributes:
        where: its path.
        name: its name in the directory around it, of which `within` is an open descriptor.
        within: see `name`.
        descriptor: an open descriptor of the directory itself.
        identity: its device and inode.
    """

    where: str
    name: str
    within: int
    descriptor: int
    identity: tuple[int, int]

    @staticmethod
    def make(place: str, name: str, within: int) -> HeldDirectory:
        """Make an empty directory; whatever has its name is removed first.

        Args:
            place: path of the directory around it.
            name: its name there.
            within: an open descriptor of the directory around it.

        Raises:
            OSError: the disk refuses it; FileNotFoundError where the directory around it was removed.
        """
        try:
            os.mkdir(name, dir_fd=within)
        except FileExistsError:
            remove(name, within)
            os.mkdir(name, dir_fd=within)
        descriptor = open_directory(name, within)
        status = os.fstat(descriptor)
        return HeldDirectory(f"{place}/{name}", name, within, descriptor, (status.st_dev, status.st_ino))

    def moved_to(self, place: str, name: str, within: int) -> HeldDirectory:
        """Rename it; return it under its new name. This object must not be used any more.

        Raises:
            OSError: it is not renamed.
        """
        os.rename(self.name, name, src_dir_fd=self.within, dst_dir_fd=within)
        return HeldDirectory(f"{place}/{name}", name, within, self.descriptor, self.identity)

    def status_in_place(self) -> os.stat_result | None:
        """The status of what its path leads to, without following a final link; None unless that is this directory."""
        return self._same(lambda: os.lstat(self.where))

    def has_its_name(self) -> bool:
        """Whether this directory still has its name in the directory around it, wherever that may be by now."""
        return self._same(lambda: os.stat(self.name, dir_fd=self.within, follow_symlinks=False)) is not None

    def _same(self, look: Callable[[], os.stat_result]) -> os.stat_result | None:
        try:
            status = look()
        except OSError:
            return None
        return status if (status.st_dev, status.st_ino) == self.identity else None

    def close(self) -> None:
        """Close its descriptor."""
        os.close(self.descriptor)


class JobDirectory:
    """The directory of one attempt, with its parts. Used by one thread at a time; only its own methods change it.

    Attributes:
        held: the directory itself.
        captures: takes what the pricer prints.
        temporary: takes the pricer's temporary files.
        input_name: the name of the input that lies in it; before `write_input`, perhaps that of an earlier attempt.
        writers: the processes that may still write into it.
    """

    __slots__ = ("_bare_mode", "_input_mark", "captures", "held", "input_name", "temporary", "writers")

    def __init__(
        self, held: HeldDirectory, captures: Captures, temporary: TemporaryDirectory, input_name: str | None = None
    ) -> None:
        self.held = held
        self.captures = captures
        self.temporary = temporary
        self.input_name = input_name
        self.writers = RemainingWriters.UNKNOWN
        self._input_mark: FileMark | None = None
        self._bare_mode: int | None = None  # its mode when nothing but the untouched input was seen in it; else None

    @property
    def where(self) -> str:
        """Its path."""
        return self.held.where

    @property
    def path(self) -> Path:
        """Its path."""
        return Path(self.held.where)

    @property
    def data(self) -> Path:
        """The directory for shared inputs in it."""
        return Path(self.held.where, "data")

    def path_of(self, name: str) -> str:
        """The path of a file in it."""
        return f"{self.held.where}/{name}"

    # --- the input --------------------------------------------------------------------------------------------------

    def write_input(self, name: str, data: bytes) -> None:
        """Write the attempt's input; that of an earlier attempt is overwritten.

        Raises:
            OSError: the disk refuses it.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        top = self.held.descriptor
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

    def fetch_input(self, name: str, fetch: Callable[[Path], object]) -> None:
        """Have `fetch` write the attempt's input to a path; that of an earlier attempt is removed first.

        Raises:
            OSError: the disk refuses it.
        """
        if self.input_name is not None:
            os.unlink(self.input_name, dir_fd=self.held.descriptor)
            self.input_name = None
        path = self.path / name
        fetch(path)
        self.input_name = name
        self._input_mark = FileMark.of(os.stat(path))

    # --- after the run ----------------------------------------------------------------------------------------------

    def pricer_ended(self, writers: RemainingWriters) -> None:
        """Note which processes may still write into it; must be called before `outputs`."""
        self.writers = writers

    def outputs(self) -> list[OutputFile]:
        """The files that the pricer wrote, in name order: all regular files but the untouched input and shared data.

        Raises:
            BadOutputError: something else than a regular file or directory is there, such as a symbolic link.
            OSError: a directory around this one was replaced; this pricer need not have done it.
        """
        if (status := self.held.status_in_place()) is None:
            self._raise_for_missing()
        try:
            if self._has_only_untouched_input():
                if status is not None and self.writers is RemainingWriters.NONE:
                    self._bare_mode = status.st_mode
                return []
            return find_outputs(self.held.descriptor, self.input_name, self._input_mark)
        except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
            raise BadOutputError(f"the pricer left a directory that cannot be read: {type(error).__name__}") from None
        except OSError as error:
            if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
                raise
            raise BadOutputError(f"the pricer left directories that cannot be read: {error.strerror}") from None

    def _has_only_untouched_input(self) -> bool:
        with os.scandir(self.held.descriptor) as entries:
            found = list(entries)
        if len(found) != 1 or found[0].name != self.input_name:
            return False
        status = found[0].stat(follow_symlinks=False)
        return is_reusable(status, REUSABLE_INPUT) and FileMark.of(status) == self._input_mark

    def _raise_for_missing(self) -> None:
        """Raise what became of a job directory that is not where it was made."""
        if self.held.has_its_name():
            raise OSError(errno.ENOTDIR, "the node's jobs directory was replaced meanwhile", self.where)
        try:
            mode = os.stat(self.held.name, dir_fd=self.held.within, follow_symlinks=False).st_mode
        except FileNotFoundError as error:
            raise BadOutputError(
                f"the job directory cannot be read: {type(error).__name__}; the pricer removed it"
            ) from None
        raise BadOutputError(f"the pricer put {kind(mode)} in the place of its job directory")

    def clear(self, mode: int) -> bool:
        """Remove all files but a small input, so that another attempt can use the directory.

        Args:
            mode: the mode that a new directory has here.

        Returns:
            False where the directory is not as good as new; then it is still there, whole or in part.

        Raises:
            OSError: the same, for a reason that the system gives.
        """
        if self._bare_mode is not None:
            return self._bare_mode == mode
        if not self.held.has_its_name() or os.fstat(self.held.descriptor).st_mode != mode:
            return False
        reusable = None
        with os.scandir(self.held.descriptor) as entries:
            found = list(entries)
        for entry in found:
            if entry.name == self.input_name and is_reusable(entry.stat(follow_symlinks=False), REUSABLE_INPUT):
                reusable = entry.name
            else:
                os.unlink(entry.name, dir_fd=self.held.descriptor)
        self.input_name = reusable
        return True
