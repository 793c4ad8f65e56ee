"""The files that take what pricers print: opened by the node, reached by descriptor, used again while they are empty.

A pair serves attempt after attempt, since making and removing two files costs more than a short job prints. Each
attempt opens the pair again, so that positions, flags and locks of an earlier pricer are gone, and takes it only if no
other process has it open. The node reads what it opened, so that nothing a pricer does to the names matters.
A warm pricer gets the names instead and opens the files itself; then what has the name in the end counts.

Unnamed temporary files (`O_TMPFILE`) would be simpler. They cost the same on ext4 with a journal, but on ext4 without
one an eighth more CPU per job of `/bin/true`; docs/decisions/node.md has the figures (node-04).
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import stat
from collections import deque
from typing import NamedTuple

from raygrid.node.attempt.outputs import OutputFile
from raygrid.node.attempt.safe_paths import BadOutputError, is_reusable, kind, open_directory, remove
from raygrid.system import system_calls

STDERR_TAIL = 4_000
_REOPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = _REOPEN | os.O_CREAT | os.O_EXCL
# A pair is not used again before so many others rest: a process that was spawned meanwhile has the pair open until it
# becomes another pricer, and the kernel cannot tell that from a process that keeps it open.
RESTING = 16


class Capture(NamedTuple):
    """One file that takes what is printed.

    Attributes:
        title: its name in the result.
        name: its name in a directory, of which `within` is an open descriptor.
        within: see `name`.
        where: its path.
        descriptor: open for reading and writing; no other attempt has it.
        is_opened_by_name: whether the pricer opens it by its path; else the pricer gets the descriptor.
    """

    title: str
    name: str
    within: int
    where: str
    descriptor: int
    is_opened_by_name: bool = False

    def printed(self) -> OutputFile:
        """What the attempt printed, as a file of its result.

        Raises:
            BadOutputError: the pricer put something else in its place.
        """
        if not self.is_opened_by_name:
            size = system_calls.size_of(self.descriptor)
            return OutputFile(self.title, -1, "", size, descriptor=self.descriptor)
        try:
            status = os.stat(self.name, dir_fd=self.within, follow_symlinks=False)
        except FileNotFoundError:
            return OutputFile(self.title, self.within, self.name, 0)
        if not stat.S_ISREG(status.st_mode):
            stream = self.title.partition(".")[0]
            raise BadOutputError(f"the pricer put {kind(status.st_mode)} in the place of its {stream}")
        return OutputFile(self.title, self.within, self.name, status.st_size)

    def tail(self) -> str:
        """The end of what was printed, as text; empty where it cannot be read."""
        try:
            printed = self.printed()
            if not printed.size:
                return ""
            with printed.open() as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - STDERR_TAIL))
                return file.read(STDERR_TAIL).decode(errors="replace").replace("\0", "\ufffd")
        except (OSError, BadOutputError):
            return ""

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.descriptor)

    def delete(self) -> None:
        """Close it, and remove its name."""
        self.close()
        _remove(self.name, self.within)


class Captures(NamedTuple):
    """The files that take what one attempt prints."""

    stdout: Capture
    stderr: Capture

    def delete(self) -> None:
        """Close them, and remove their names."""
        for each in self:
            each.delete()


class CapturePool:
    """The captures of one life of an agent. Safe to call from many threads."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._descriptor = -1
        self._serial = itertools.count()
        self._free: deque[str] = deque()  # names of pairs that were empty; the one that rests longest is first

    def open(self) -> None:
        """Open the directory, which must exist."""
        self._descriptor = open_directory(self._place)

    def close(self) -> None:
        """Close the directory; no pair is kept after that."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, job_directory: str, within: int, *, by_name: bool = False) -> Captures:
        """A pair for one attempt.

        Args:
            job_directory: its path; where the pool's directory was removed, the pair is made beside it.
            within: descriptor of the directory around the job directory.
            by_name: whether the pricer opens them by name.
        """
        while len(self._free) > RESTING:
            try:
                name = self._free.popleft()
            except IndexError:  # other threads took them
                break
            try:
                captures = _pair(self._place, name, self._descriptor, _REOPEN, by_name=by_name)
            except OSError:
                for stream in ("stdout", "stderr"):
                    _remove(f"{name}@{stream}", self._descriptor)
                continue
            if all(_is_as_new(each.descriptor) for each in captures):
                return captures
            captures.delete()
        name = str(next(self._serial))
        try:
            return _pair(self._place, name, self._descriptor, _CREATE, by_name=by_name)
        except FileNotFoundError:
            place, _, name = job_directory.rpartition("/")
            return _pair(place, name, within, _CREATE, by_name=by_name)

    def give_back(self, captures: Captures) -> None:
        """Take a pair back once its attempt is over; it serves again if nothing was printed."""
        stdout = captures.stdout
        if (
            self._descriptor >= 0
            and stdout.within == self._descriptor
            and not any(system_calls.size_of(each.descriptor) for each in captures)
        ):
            for each in captures:
                each.close()
            self._free.append(stdout.name.partition("@")[0])
        else:
            captures.delete()


def _is_as_new(file: int) -> bool:
    """Whether a file is as good as new: empty, without blocks on the disk, and open in no other process."""
    status = os.fstat(file)
    return is_reusable(status, 0) and status.st_blocks == 0 and _is_open_here_only(file)


def _is_open_here_only(file: int) -> bool:
    """Whether this is the only open descriptor of a file: only then does the kernel grant a write lease.

    False on a file system without leases.
    """
    try:
        # While the lease is held, a process that opens the file makes the kernel send a signal. SIGURG is ignored by
        # default; SIGIO would end the agent.
        system_calls.control(file, fcntl.F_SETSIG, signal.SIGURG)
        system_calls.control(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        system_calls.control(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def _remove(name: str, within: int) -> None:
    with contextlib.suppress(OSError):  # a file that a daemon still writes to is removed when the agent ends
        remove(name, within)


def _pair(place: str, name: str, within: int, flags: int, *, by_name: bool) -> Captures:
    out = _opened("stdout", place, name, within, flags, by_name=by_name)
    try:
        return Captures(out, _opened("stderr", place, name, within, flags, by_name=by_name))
    except OSError:
        out.close()
        raise


def _opened(stream: str, place: str, name: str, within: int, flags: int, *, by_name: bool) -> Capture:
    named = f"{name}@{stream}"  # no attempt can have this name: a job id has no '@'
    try:
        file = os.open(named, flags, 0o666, dir_fd=within)
    except FileExistsError:
        remove(named, within)
        file = os.open(named, flags, 0o666, dir_fd=within)
    return Capture(f"{stream}.txt", named, within, f"{place}/{named}", file, by_name)
