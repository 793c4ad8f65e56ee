"""What starting a supervisor takes, be it of a grid on this machine or of a cluster's host."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 12


def start_supervisor(module: str, given: bytes, log: Path) -> subprocess.Popen[bytes]:
    """Start a module as a process that outlives this one's terminal.

    Args:
        module: the module, run as a script in the log's directory.
        given: what it finds on its standard input: settings may hold secrets, which do not belong into arguments.
        log: where its output goes, behind what is there.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=log.parent,
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(given)
    return process


def end_of(log: Path) -> str:
    """The last lines of a log, for an error message."""
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
    return "(no log)"


def die_with_parent() -> None:
    """Have the kernel send this process SIGTERM when its parent dies; makes one system call and allocates nothing."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
