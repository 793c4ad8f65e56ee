"""The files that take what pricers print: opened by the node, reached by descriptor, used again while they are empty.

A pair serves attempt after attempt, since making and removing two files costs more than a short job prints. Each gets
it opened anew, so that nothing of how an earlier pricer used it (position, flags, locks) lasts, and only if nobody else
has it open any more, be it a process to which the earlier pricer passed it on. The node reads what it opened, so that
nothing a pricer does to the names matters. A warm pricer is told the names instead, and opens them itself.
`workspace.py` owns this.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from raygrid.node.attempt.safe_paths import is_as_new, open_directory, remove
from raygrid.system import system_calls

_AGAIN = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = _AGAIN | os.O_CREAT | os.O_EXCL
# Pairs rest while so many others do: until it has become another pricer, a process that was spawned in the meantime has
# them open as well, which cannot be told from somebody to whom they were passed on.
RESTING = 16


@dataclass(frozen=True, slots=True)
class Capture:
    """One file that takes what is printed.

    Attributes:
        title: its name in the result.
        name: its name in the directory `within`, of which that is an open descriptor.
        within: see there.
        where: its path.
        file: a descriptor, open for reading and writing, that only this attempt has.
    """

    title: str
    name: str
    within: int
    where: str
    file: int

    def close(self) -> None:
        """Hold it open no more."""
        os.close(self.file)

    def drop(self) -> None:
        """Close it, and remove its name."""
        self.close()
        _remove(self.name, self.within)


class Captures(NamedTuple):
    """What one attempt prints goes here."""

    stdout: Capture
    stderr: Capture

    def drop(self) -> None:
        """They serve no more."""
        for each in self:
            each.drop()


class CapturePool:
    """The captures of one life of an agent. Safe to call from many threads."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._held = -1
        self._serial = itertools.count()
        self._free: deque[str] = deque()  # names of pairs that were empty, those that rest longest first

    def open(self) -> None:
        """Begin, in a directory that is there."""
        self._held = open_directory(self._place)

    def close(self) -> None:
        """Hold nothing open any more; none is kept after that."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def take(self, beside: str, within: int) -> Captures:
        """A pair for one attempt.

        Args:
            beside: path of the job directory, beside which they are made where a pricer removed their own directory.
            within: descriptor of the directory that it is in.
        """
        while len(self._free) > RESTING:
            try:
                name = self._free.popleft()
            except IndexError:  # other threads were faster
                break
            try:
                captures = _pair(self._place, name, self._held, _AGAIN)
            except OSError:
                for stream in ("stdout", "stderr"):
                    _remove(f"{name}@{stream}", self._held)
                continue
            if all(_serves_again(each.file) for each in captures):
                return captures
            captures.drop()
        name = str(next(self._serial))
        try:
            return _pair(self._place, name, self._held, _NEW)
        except FileNotFoundError:
            place, _, name = beside.rpartition("/")
            return _pair(place, name, within, _NEW)

    def give_back(self, captures: Captures) -> None:
        """Take a pair back once its attempt is over; it serves again if nothing was printed."""
        stdout = captures.stdout
        if (
            self._held >= 0
            and stdout.within == self._held
            and not any(system_calls.size_of(each.file) for each in captures)
        ):
            for each in captures:
                each.close()
            self._free.append(stdout.name.partition("@")[0])
        else:
            captures.drop()


def _serves_again(file: int) -> bool:
    """Whether a file is as good as new: empty, without room of its own on the disk, and ours alone."""
    status = os.fstat(file)
    return is_as_new(status, 0) and status.st_blocks == 0 and _nobody_else_has_it(file)


def _nobody_else_has_it(file: int) -> bool:
    """Whether no other open file leads to it: only then does the kernel give a lease to write. False without leases."""
    try:
        # Who opens it in this very moment makes the kernel tell us, by a signal that does nothing instead of SIGIO.
        system_calls.control(file, fcntl.F_SETSIG, signal.SIGURG)
        system_calls.control(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        system_calls.control(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    return True


def _remove(name: str, within: int) -> None:
    with contextlib.suppress(OSError):  # what a daemon still writes into is removed with the agent's life
        remove(name, within)


def _pair(place: str, name: str, within: int, flags: int) -> Captures:
    out = _opened("stdout", place, name, within, flags)
    try:
        return Captures(out, _opened("stderr", place, name, within, flags))
    except OSError:
        out.close()
        raise


def _opened(stream: str, place: str, name: str, within: int, flags: int) -> Capture:
    named = f"{name}@{stream}"  # an attempt cannot be called so: a job id has no '@'
    try:
        file = os.open(named, flags, 0o666, dir_fd=within)
    except FileExistsError:
        remove(named, within)
        file = os.open(named, flags, 0o666, dir_fd=within)
    return Capture(f"{stream}.txt", named, within, f"{place}/{named}", file)
