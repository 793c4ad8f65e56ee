"""Spawns a pricer by glibc's `posix_spawn`, the cheapest safe way, while the agent's other threads run.

`subprocess` and `os.posix_spawn` hold the interpreter lock until the exec of the new process, which is a good part of a
short job. `os.posix_spawn` can neither change the directory nor close the agent's files (such as Ray's sockets) in the
pricer. If the C library lacks a function, `subprocess` is used.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
_NEEDED = ("posix_spawn_file_actions_addchdir_np", "posix_spawn_file_actions_addclosefrom_np")
_FIRST_TO_CLOSE = 3
WRITTEN_S = 10.0
"""Seconds for which copying a large program may take; after that, the attempt fails and runs on another node."""
_LOOK_S = 0.05
_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR)
_BUFFER = 1024  # larger than any type of the C library that is used here (on 64 bits: 336, 128 and 80 bytes)

_libc = ctypes.CDLL(None)  # releases the interpreter lock during a call
_quick = ctypes.PyDLL(None)  # keeps the lock: for calls that only fill in a structure


class _Library:
    """The functions of the C library, and the attributes that all spawns share."""

    def __init__(self) -> None:
        for name in _NEEDED:
            getattr(_quick, name)  # raises AttributeError if it is missing
        self.spawn = _libc.posix_spawn
        self.init = _quick.posix_spawn_file_actions_init
        self.destroy = _quick.posix_spawn_file_actions_destroy
        self.chdir = _quick.posix_spawn_file_actions_addchdir_np
        self.dup2 = _quick.posix_spawn_file_actions_adddup2
        self.close_from = _quick.posix_spawn_file_actions_addclosefrom_np
        self.attributes = ctypes.create_string_buffer(_BUFFER)
        signals = ctypes.create_string_buffer(_BUFFER)
        _check(_quick.posix_spawnattr_init(self.attributes))
        _quick.sigfillset(signals)
        # Python ignores some signals; they must have their default effect in a pricer.
        _check(_quick.posix_spawnattr_setsigdefault(self.attributes, signals))
        # No signal is blocked; see `no_blocked_signals`.
        _quick.sigemptyset(signals)
        _check(_quick.posix_spawnattr_setsigmask(self.attributes, signals))
        _check(_quick.posix_spawnattr_setflags(self.attributes, ctypes.c_short(_SETSID | _SETSIGDEF | _SETSIGMASK)))


def _check(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))


def _library() -> _Library | None:
    try:
        return _Library()
    except (AttributeError, OSError):
        return None


_LIBRARY = _library()


@contextmanager
def no_blocked_signals() -> Iterator[None]:
    """Unblock all signals of this thread within the context, so that a process that it starts blocks none.

    Ray blocks SIGINT in its workers, and a process inherits that; `timeout -s INT` would have no effect in a pricer.
    """
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class Environment:
    """A pricer's environment in the form that a spawn takes, made once; `with_these` adds a job's own variables.

    Raises:
        ValueError: a variable is invalid: its name has a `=`, or it contains a NUL.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        self.search_path = [os.fsencode(place) for place in os.get_exec_path(self.variables)]
        self._entries = [_entry(name, value) for name, value in self.variables.items()]

    def with_these(self, variables: Mapping[str, str]) -> list[bytes]:
        """All entries; the given variables must not be in the environment already."""
        return [*self._entries, *(_entry(name, value) for name, value in variables.items())]


def _entry(name: str, value: str) -> bytes:
    if "=" in name or not name:
        raise ValueError(f"illegal environment variable name {name!r}")
    return _word(f"{name}={value}")


def _word(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("embedded null byte")
    return os.fsencode(text)


def when_written(start: Callable[[], T], patience_s: float = WRITTEN_S) -> T:
    """Start a program with `start`; while the program's file is being written, try again, for `patience_s` at most.

    Linux starts no program that is open for writing. While a new version is copied over an executable, all attempts of
    a job would fail within milliseconds.

    Raises:
        OSError: what `start` raised.
    """
    until = time.monotonic() + patience_s
    while True:
        try:
            return start()
        except OSError as error:
            if error.errno != errno.ETXTBSY or time.monotonic() > until:
                raise
        time.sleep(_LOOK_S)


def spawn(
    command: Sequence[str],
    environment: Environment,
    more: Mapping[str, str],
    directory: str,
    streams: tuple[int, int, int],
) -> int:
    """Start a program in a session of its own, without other open files; return its pid, which the caller waits for.

    The first word is searched in the PATH of `environment` unless it has a slash; `more` are further variables.
    `streams` are descriptors of stdin, stdout and stderr, which the caller closes.

    Raises:
        OSError: it cannot be started; `errno` is the reason.
        ValueError: a word or a variable contains a NUL.
    """
    if _LIBRARY is None or min(streams) < _FIRST_TO_CLOSE:
        return _by_subprocess(command, environment, more, directory, streams)
    words = [_word(word) for word in command]
    entries = environment.with_these(more)
    arguments = (ctypes.c_char_p * (len(words) + 1))(*words)
    variables = (ctypes.c_char_p * (len(entries) + 1))(*entries)
    where = os.fsencode(directory)
    actions = ctypes.create_string_buffer(_BUFFER)
    pid = ctypes.c_int()
    library = _LIBRARY
    _check(library.init(actions))
    try:
        _check(library.chdir(actions, where))
        for number, descriptor in enumerate(streams):
            _check(library.dup2(actions, descriptor, number))
        _check(library.close_from(actions, _FIRST_TO_CLOSE))
        error = errno.ENOENT
        for program in _candidates(words[0], environment.search_path, where):
            failed = library.spawn(ctypes.byref(pid), program, actions, library.attributes, arguments, variables)
            if failed == 0:
                return pid.value
            if error in _NOT_FOUND:  # else an earlier candidate exists: report its error
                error = failed
    finally:
        library.destroy(actions)
    raise OSError(error, os.strerror(error), command[0])


def _candidates(program: bytes, search_path: Sequence[bytes], directory: bytes) -> list[bytes]:
    """The existing paths that a program's name may mean; a check costs less than a spawn that fails."""
    if b"/" in program:
        return [program]
    found = [os.path.join(place, program) for place in search_path]
    return [each for each in found if os.path.exists(os.path.join(directory, each))]


def _by_subprocess(
    command: Sequence[str],
    environment: Environment,
    more: Mapping[str, str],
    directory: str,
    streams: tuple[int, int, int],
) -> int:
    stdin, stdout, stderr = streams
    variables = {**environment.variables, **more}
    with no_blocked_signals():
        process = subprocess.Popen(
            command, stdin=stdin, stdout=stdout, stderr=stderr, cwd=directory, env=variables, start_new_session=True
        )
    process.returncode = 0  # the caller waits for it; this object must not
    return process.pid
