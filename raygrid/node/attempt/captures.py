"""The files that capture stdout and stderr of pricers; the node opens them, and reuses a pair while it is empty.

Making and removing two files costs more than what a short job prints. Each attempt opens its pair again, which resets
positions, flags and locks, and takes the pair only if no other process has it open. The node reads by descriptor, so a
pricer cannot replace a file by its name. A warm pricer opens the files by name; then the file with that name counts.

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
from raygrid.node.attempt.safe_paths import (
    BadOutputError,
    FileIdentity,
    has_attributes,
    is_reusable,
    kind,
    open_directory,
    remove,
)
from raygrid.system import system_calls

STDERR_TAIL = 4_000
_REOPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = _REOPEN | os.O_CREAT | os.O_EXCL
# A pair is reused only while more than this many others are free: a process spawned meanwhile keeps the pair open until
# its exec, which the kernel cannot distinguish from a process that keeps it open for good.
MIN_FREE = 16
_MODE = 0o666


class Capture(NamedTuple):
    """One capture file.

    Attributes:
        title: its name in the result.
        name: its name in the directory that `dir_fd` has open.
        descriptor: open for reading and writing; no other attempt has it.
        is_opened_by_name: whether the pricer opens it by its path; else the pricer gets the descriptor.
    """

    title: str
    name: str
    dir_fd: int
    path: str
    descriptor: int
    is_opened_by_name: bool = False

    def printed(self) -> OutputFile:
        """What the attempt printed, as a file of its result; BadOutputError if the pricer replaced the file."""
        if not self.is_opened_by_name:
            size = system_calls.size_of(self.descriptor)
            return OutputFile(self.title, -1, "", size, descriptor=self.descriptor)
        try:
            status = os.stat(self.name, dir_fd=self.dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return OutputFile(self.title, self.dir_fd, self.name, 0)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            stream = self.title.partition(".")[0]
            put = "a hard link" if stat.S_ISREG(status.st_mode) else kind(status.st_mode)
            raise BadOutputError(f"the pricer replaced its {stream} by {put}; it must write into the file that it got")
        return OutputFile(self.title, self.dir_fd, self.name, status.st_size, identity=FileIdentity.of(status))

    def tail(self) -> str:
        """The end of what was printed, as text; empty if it cannot be read."""
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

    def delete(self) -> None:
        """Close and remove it."""
        os.close(self.descriptor)
        _remove(self.name, self.dir_fd)


class Captures(NamedTuple):
    """The pair of files that captures what one attempt prints."""

    stdout: Capture
    stderr: Capture

    def delete(self) -> None:
        """Close and remove both."""
        for each in self:
            each.delete()


class CapturePool:
    """The captures of one life of an agent; thread-safe."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._descriptor = -1
        self._serial = itertools.count()
        self._free: deque[str] = deque()  # names of empty pairs; the first has been free for longest

    def open(self) -> None:
        """Open the pool's directory, which must exist."""
        self._descriptor = open_directory(self._place)

    def close(self) -> None:
        """Close the directory; later pairs are removed when they are given back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def take(self, job_directory: str, dir_fd: int, *, by_name: bool = False) -> Captures:
        """A pair for one attempt; `by_name` if its pricer opens the files by name.

        If a pricer removed the pool's directory, the pair is made beside the job directory, whose parent `dir_fd` has
        open.
        """
        while len(self._free) > MIN_FREE:
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
            if all(_is_unused(each.descriptor) for each in captures):
                return captures
            captures.delete()
        name = str(next(self._serial))
        try:
            return _pair(self._place, name, self._descriptor, _CREATE, by_name=by_name)
        except FileNotFoundError:
            place, _, name = job_directory.rpartition("/")
            return _pair(place, name, dir_fd, _CREATE, by_name=by_name)

    def give_back(self, captures: Captures) -> None:
        """Take a pair back after its attempt; it is kept for reuse if nothing was printed."""
        stdout = captures.stdout
        if (
            self._descriptor >= 0
            and stdout.dir_fd == self._descriptor
            and not any(system_calls.size_of(each.descriptor) for each in captures)
        ):
            for each in captures:
                os.close(each.descriptor)
            self._free.append(stdout.name.partition("@")[0])
        else:
            captures.delete()


def _is_unused(file: int) -> bool:
    """Whether a file is empty, has no blocks on disk, and is open only here; False on a file system without leases."""
    status = os.fstat(file)
    if not is_reusable(status, 0) or status.st_blocks or stat.S_IMODE(status.st_mode) != _MODE or has_attributes(file):
        return False
    try:
        # The kernel grants a write lease only if this is the only open descriptor of the file.
        # While the lease is held, a process that opens the file makes the kernel send a signal. SIGURG is ignored by
        # default; SIGIO would end the agent.
        system_calls.control(file, fcntl.F_SETSIG, signal.SIGURG)
        system_calls.control(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        system_calls.control(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def _remove(name: str, dir_fd: int) -> None:
    with contextlib.suppress(OSError):  # what cannot be removed now is removed when the agent ends
        remove(name, dir_fd)


def _pair(place: str, name: str, dir_fd: int, flags: int, *, by_name: bool) -> Captures:
    out = _opened("stdout", place, name, dir_fd, flags, by_name=by_name)
    try:
        return Captures(out, _opened("stderr", place, name, dir_fd, flags, by_name=by_name))
    except OSError:
        os.close(out.descriptor)
        raise


def _opened(stream: str, place: str, name: str, dir_fd: int, flags: int, *, by_name: bool) -> Capture:
    named = f"{name}@{stream}"  # no job directory has such a name: a job id contains no '@'
    try:
        file = os.open(named, flags, 0o666, dir_fd=dir_fd)
    except FileExistsError:
        remove(named, dir_fd)
        file = os.open(named, flags, 0o666, dir_fd=dir_fd)
    if flags & os.O_CREAT:
        # A pricer may run as another user, and open its own again (`/dev/stderr`); nobody else can enter the directory.
        os.fchmod(file, _MODE)
    return Capture(f"{stream}.txt", named, dir_fd, f"{place}/{named}", file, by_name)
