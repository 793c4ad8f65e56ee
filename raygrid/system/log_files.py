"""The logs of the tiers: a file of bounded size for each process, kept when the process ends.

A supervisor passes the directory to the processes that it starts in an environment variable; without it, as in tests,
Python's logging is left as it is. This is not part of `logs.py` because clients do not need it.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

from filelock import BaseFileLock

from raygrid.system.lock import is_locked, try_lock
from raygrid.system.logs import KEPT, MOST_BYTES, VARIABLE, line, private

PARENT = "parent"
_OWN = "raygrid"
_MOST_OF_ONE_NAME = 64
_held: list[BaseFileLock] = []
"""Locks of this process's logs, held until it ends: two processes that rotate one file would lose lines."""


def keep_logs(who: str) -> None:
    """Write the log of this process of a tier to its own file, if the environment names a directory.

    Warnings of all libraries are written, and raygrid's own lines from INFO on. `who`, the tier and its subject, such
    as `leader rack-a`, also names the file.
    """
    named = os.environ.get(VARIABLE)
    root = logging.getLogger()
    if not named or any(isinstance(handler, BoundedFile) for handler in root.handlers):
        return
    try:
        handler = BoundedFile(claim_log(Path(named), re.sub(r"[^A-Za-z0-9._-]+", "-", who)))
    except OSError as error:
        logging.getLogger(__name__).warning("%s has no log file in %s; going on without: %s", who, named, error)
        return
    handler.setFormatter(_Lines(who))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(_OWN).setLevel(logging.INFO)
    threading.excepthook = _log_end_of_thread
    logging.getLogger(_OWN).info("process %d begins", os.getpid())


def has_log(directory: Path, who: str) -> bool:
    """Whether a process that gave this name to `keep_logs` still runs."""
    return any(map(is_locked, directory.glob(_lock_of(Path(f"{who}*.log")).name)))


class BoundedFile(RotatingFileHandler):
    """A file of bounded size that only its owner can read; errors of writing are passed to `on_error` or ignored."""

    def __init__(
        self,
        path: Path,
        *,
        most_bytes: int | None = None,
        kept: int = KEPT,
        on_error: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            path, maxBytes=most_bytes or MOST_BYTES, backupCount=kept, encoding="utf-8", errors="backslashreplace"
        )
        self._on_error = on_error

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, errors=self.errors, opener=private)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging calls it so
        """Do not print the error (a full disk, a deleted directory): there is no other place for a message."""
        self._on_error()


class _Lines(logging.Formatter):
    def __init__(self, who: str) -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if not record.name.startswith(_OWN):
            text = f"{record.name}: {text}"
        for more in (record.exc_info and self.formatException(record.exc_info), record.stack_info):
            text += f"\n{more}" if more else ""
        return line(record.created, record.levelname, self._who, text)


def claim_log(directory: Path, name: str) -> Path:
    """The log file for a process of that name, held until it ends: the file of one that has ended, or a new one.

    Raises:
        OSError: the directory cannot be written, or too many processes of that name have logs there.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for number in range(1, _MOST_OF_ONE_NAME + 1):
        path = directory / (f"{name}.log" if number == 1 else f"{name}-{number}.log")
        lock = try_lock(_lock_of(path))
        if lock is not None:
            _held.append(lock)
            return path
    raise OSError(f"{_MOST_OF_ONE_NAME} processes have logs there")


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is not SystemExit and ended.exc_value is not None:
        name = "a thread" if ended.thread is None else f"thread {ended.thread.name}"
        found = (ended.exc_type, ended.exc_value, ended.exc_traceback)
        logging.getLogger(__name__).error("%s ended with an error", name, exc_info=found)
