"""The format and place of a grid's logs, and how a supervisor writes its own.

Logs are in `logs` below the grid's directory, or the host's on a cluster. `log_files.py` writes those of the tiers.

    2026-11-29T17:40:01.123Z WARNING leader rack-a: the job store does not answer: …

Lines that begin with two blanks continue the line before them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from datetime import UTC, datetime
from pathlib import Path

VARIABLE = "RAYGRID_LOGS"
"""Environment variable that names the directory of logs, for processes of the tiers."""

DIRECTORY = "logs"
SUPERVISOR = "supervisor.log"
MOST_BYTES = 10 * 1024**2
KEPT = 3
"""A log has at most `MOST_BYTES`; its `KEPT` predecessors are kept."""

_TAIL_LINES = 12


def line(at_s: float, level: str, who: str, text: str) -> str:
    """A line of a log: UTC time, from seconds since 1970; level; tier; and the message, with indented further lines."""
    at = datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00")
    return f"{at}Z {level} {who}: " + "\n  ".join(_printable(each) for each in text.splitlines() or [""])


def write_line(who: str, text: str, level: str = "INFO") -> None:
    """Write a line to standard output, which is this process's log of bounded size; errors are ignored."""
    with contextlib.suppress(OSError, ValueError):  # a full disk must not end a supervisor
        print(line(time.time(), level, who, text).encode(errors="backslashreplace").decode(), flush=True)
        _bound_output()


def _bound_output() -> None:
    """Move a too large log to `LOG.1`, where standard output is a file; other processes may write to it as well."""
    found = os.fstat(1)
    if stat.S_ISREG(found.st_mode) and found.st_size > MOST_BYTES:
        earlier = f"{os.readlink('/proc/self/fd/1')}.1"
        with open("/proc/self/fd/1", "rb") as now, open(earlier, "wb", opener=private) as kept:
            shutil.copyfileobj(now, kept)
        os.ftruncate(1, 0)


def log_size(log: Path) -> int:
    """The size of a log in bytes; 0 if it does not exist."""
    return log.stat().st_size if log.exists() else 0


def log_end(log: Path, since: int = 0) -> str:
    """The last lines of a log, for an error message; `since` is the size at which the present run began."""
    with contextlib.suppress(OSError):
        data = log.read_bytes()
        lines = data[since if since <= len(data) else 0 :].decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])
    return "(no log)"


def private(path: str, flags: int) -> int:
    """Open a file that only its owner can read, as an `opener` of `open`."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)
