"""Records which helpers the agents of a grid on this machine use, by locks on files, one file for each use.

Several nodes on one machine share the helpers of a user, such as wine's server. An agent holds a shared lock on a file
for each pricer and program that its attempts use, and ends helpers only under exclusive locks. The kernel releases the
locks of a dead agent. flock(2) is used directly: filelock has no shared lock on a file (its `ReadWriteLock` is a SQLite
database), and here a shared lock becomes an exclusive one without being released.

Used by `gate.py`, under its lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterable
from pathlib import Path

logger = logging.getLogger(__name__)


class Claims:
    """The locks of one agent on files in a directory; None if no other agent can share helpers."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._held: dict[str, int] = {}

    def holds(self, uses: frozenset[str]) -> bool:
        """Whether all of these are claimed already."""
        return self._directory is None or uses <= self._held.keys()

    def share(self, uses: Iterable[str]) -> bool:
        """Claim what attempts are about to use; False if another agent is ending such helpers."""
        return all(use in self._held or self._lock(use, fcntl.LOCK_SH) for use in uses)

    def exclude(self, uses: Iterable[str]) -> bool:
        """Claim these for this agent alone; False if another agent uses one of them, and then none is claimed."""
        uses = list(uses)
        if self._directory is None or all(self._lock(use, fcntl.LOCK_EX) for use in uses):
            return True
        self.release(uses)
        return False

    def release(self, uses: Iterable[str]) -> None:
        """Release these."""
        for use in uses:
            if (file := self._held.pop(use, None)) is not None:
                os.close(file)

    def keep_only(self, uses: Iterable[str]) -> None:
        """Release all but these."""
        self.release(self._held.keys() - set(uses))

    def _lock(self, use: str, kind: int) -> bool:
        if self._directory is None:
            return True
        file = self._held.pop(use, -1)
        try:
            if file < 0:
                self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                file = os.open(self._directory / use, flags, 0o600)
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except OSError as error:  # a file system without locks
            logger.warning("%s cannot be locked: %s; other agents of this machine may end helpers in use", use, error)
            if file < 0:
                return True
        self._held[use] = file
        return True

    def close(self) -> None:
        """Release everything."""
        with contextlib.suppress(OSError):
            self.keep_only(())
