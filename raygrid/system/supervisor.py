"""The common parts of the supervisors of a local grid and of a cluster's host.

A supervisor holds the lock of its directory, stops on a signal, starts children that end with it, and writes its log to
standard output. `orphans.py` ends orphans of its children.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from raygrid.errors import RaygridError, SettingsError
from raygrid.system import logs
from raygrid.system.lock import only_one
from raygrid.system.processes import die_with_parent, forbid_tracing
from raygrid.system.ray_environment import UTF8, without_settings

FAILED = 1
_WHO = "supervisor"


def write_log(text: str, level: str = "INFO") -> None:
    """Write a line to the log of this process, a supervisor."""
    logs.write_line(_WHO, text, level)


def start_supervisor(module: str, given: bytes, directory: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start a module as a process that outlives this one's terminal, in `directory`; its output is appended to a log.

    It gets `given` on its standard input, because settings may hold secrets, which must not be arguments. For the same
    reason it gets no variables that are settings. The directory is an argument, by which the process can be found.
    """
    log.parent.mkdir(mode=0o700, exist_ok=True)
    with open(log, "ab", opener=logs.private) as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(directory)],  # -P: import nothing from the working directory
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=directory,
            env={**without_settings(os.environ), **UTF8, logs.VARIABLE: str(directory / logs.DIRECTORY)},
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(given)
    return process


def run_alone(directory: Path, supervise: Callable[[], None], *, taken: int, patience_s: float = 0.0) -> int:
    """Run `supervise` while holding the lock of its directory; returns the exit code for the process.

    Errors are written to the log. The code is `taken` if another supervisor still holds the lock after `patience_s`.
    """
    forbid_tracing()
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(only_one(directory, patience_s))
        except SettingsError:
            write_log("another supervisor runs already; this one ends")
            return taken
        try:
            supervise()
        except RaygridError as error:
            write_log(str(error), "ERROR")
            return FAILED
        except Exception as error:
            below = error.__traceback__.tb_next if error.__traceback__ else None  # without the frame of this function
            write_log("".join(traceback.format_exception(error.with_traceback(below))), "ERROR")
            return FAILED
    return 0


def stop_on_signals(stop: threading.Event) -> None:
    """Set an event on SIGTERM, SIGINT and SIGHUP, which then do not end this process."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())


def start_child(
    command: Sequence[str], log: Path, *, environment: Mapping[str, str] | None = None, fresh_log: bool = False
) -> subprocess.Popen[bytes]:
    """Start a process that ends with this one, without input; its output goes to a log that only the owner may read."""
    with open(log, "wb" if fresh_log else "ab", opener=logs.private) as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no allocation
        )
