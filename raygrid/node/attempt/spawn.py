"""Spawns a pricer the cheapest safe way: glibc's `posix_spawn`, which lets the agent's other threads go on meanwhile.

Python's own ways hold the interpreter until the new process has become the pricer, for a good part of a short job, and
`os.posix_spawn` can neither change the directory nor keep the agent's files (Ray's sockets among them) out of the
pricer. Where the C library lacks what is needed, `subprocess` does the same. Called by `runner.py`.
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
"""Seconds for which copying a large program may take; then it is another node's turn."""
_LOOK_S = 0.05
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR)
# Larger than what the C library wants for any of its types here (on 64 bits: 336, 128 and 80 bytes).
_ROOM = 1024

_libc = ctypes.CDLL(None)  # gives the interpreter up during a call
_quick = ctypes.PyDLL(None)  # does not: for what only fills in a structure


class _Library:
    """The functions of the C library, and the attributes that all spawns share."""

    def __init__(self) -> None:
        for name in _NEEDED:
            getattr(_quick, name)  # AttributeError where it is missing
        self.spawn = _libc.posix_spawn
        self.init = _quick.posix_spawn_file_actions_init
        self.destroy = _quick.posix_spawn_file_actions_destroy
        self.chdir = _quick.posix_spawn_file_actions_addchdir_np
        self.dup2 = _quick.posix_spawn_file_actions_adddup2
        self.close_from = _quick.posix_spawn_file_actions_addclosefrom_np
        self.attributes = ctypes.create_string_buffer(_ROOM)
        signals = ctypes.create_string_buffer(_ROOM)
        _check(_quick.posix_spawnattr_init(self.attributes))
        _quick.sigfillset(signals)
        # Python ignores some signals of which a pricer must die as any program does.
        _check(_quick.posix_spawnattr_setsigdefault(self.attributes, signals))
        # As `no_blocked_signals` does.
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
    """Let this thread block no signal for a moment: a process that it starts then blocks none either.

    Ray blocks SIGINT in its workers, and a process passes its mask on: in a pricer, `timeout -s INT` would do nothing.
    """
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class Environment:
    """A pricer's environment in the form that a spawn takes, made once; `with_these` adds what differs between jobs.

    Raises:
        ValueError: a variable cannot be: its name has a `=`, or there is a NUL in it.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = dict(variables)
        self.search_path = [os.fsencode(place) for place in os.get_exec_path(self.variables)]
        self._entries = [_entry(name, value) for name, value in self.variables.items()]

    def with_these(self, variables: Mapping[str, str]) -> list[bytes]:
        """All entries; the variables given must not be among those of the environment."""
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
    """Start a program with `start`; wait for one that is just being written, for so many seconds at most.

    Linux starts no program that is open for writing. While a new version is copied onto an executable, each attempt
    would fail within milliseconds, and its job with the last of them.

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
    stdin: int,
    stdout: int,
    stderr: int,
) -> int:
    """Start a program in a session of its own, with three open files and no other; gives its pid, to be waited for.

    Args:
        command: its words; the first is looked for in the PATH of its own environment unless it has a slash.
        environment: its environment.
        more: further variables.
        directory: its working directory.
        stdin: descriptor of its standard input; the caller closes all three.
        stdout: of its standard output.
        stderr: of its standard error.

    Raises:
        OSError: it cannot be started, `errno` says why.
        ValueError: a word or a variable has a NUL in it.
    """
    if _LIBRARY is None or min(stdin, stdout, stderr) < _FIRST_TO_CLOSE:
        return _by_subprocess(command, environment, more, directory, stdin, stdout, stderr)
    words = [_word(word) for word in command]
    entries = environment.with_these(more)
    arguments = (ctypes.c_char_p * (len(words) + 1))(*words)
    variables = (ctypes.c_char_p * (len(entries) + 1))(*entries)
    where = os.fsencode(directory)
    actions = ctypes.create_string_buffer(_ROOM)
    pid = ctypes.c_int()
    library = _LIBRARY
    _check(library.init(actions))
    try:
        _check(library.chdir(actions, where))
        for number, descriptor in enumerate((stdin, stdout, stderr)):
            _check(library.dup2(actions, descriptor, number))
        _check(library.close_from(actions, _FIRST_TO_CLOSE))
        error = errno.ENOENT
        for program in _candidates(words[0], environment.search_path, where):
            failed = library.spawn(ctypes.byref(pid), program, actions, library.attributes, arguments, variables)
            if failed == 0:
                return pid.value
            if error in _NOT_THERE:  # else it was there, earlier on the path: that is what to tell
                error = failed
    finally:
        library.destroy(actions)
    raise OSError(error, os.strerror(error), command[0])


def _candidates(program: bytes, search_path: Sequence[bytes], directory: bytes) -> list[bytes]:
    """What a program's name may stand for; trying to spawn what is not there costs more than looking."""
    if b"/" in program:
        return [program]
    found = [os.path.join(place, program) for place in search_path]
    return [each for each in found if os.path.exists(os.path.join(directory, each))]


def _by_subprocess(
    command: Sequence[str],
    environment: Environment,
    more: Mapping[str, str],
    directory: str,
    stdin: int,
    stdout: int,
    stderr: int,
) -> int:
    with no_blocked_signals():
        process = subprocess.Popen(
            command,
            cwd=directory,
            env={**environment.variables, **more},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    process.returncode = 0  # the caller waits for it; this object must not
    return process.pid
