"""Lets one of all agents of a machine at a time run a suspect's last attempt.

A job that ends every process it can reach ends the attempts of all agents of its machine. Which of several suspects it
was can only be told if no other one runs at that time, be it under another agent or in another group.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import BaseFileLock

from raygrid.system.lock import try_lock
from raygrid.system.machine import machine_id

logger = logging.getLogger(__name__)

LOOK_S = 0.2


class Apart:
    """Turns among the agents of one machine and one grid.

    Args:
        directory: what the agents have in common.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / f"apart-{machine_id()}.lock"

    @contextlib.contextmanager
    def turn(self, given_up: Callable[[], bool]) -> Iterator[bool]:
        """Wait until no other agent has the turn, and have it until the end; False where it was given up meanwhile.

        Where the lock cannot be used at all (a file system without locks), the turn is had at once.
        """
        lock: BaseFileLock | None = None
        has_turn = False
        try:
            while not has_turn and not given_up():
                lock = try_lock(self._path)
                has_turn = lock is not None
                if not has_turn:
                    time.sleep(LOOK_S)
        except OSError as error:
            logger.warning("cannot lock %s: %s; other suspects may run at the same time", self._path, error)
            has_turn = not given_up()
        try:
            yield has_turn
        finally:
            if lock is not None:
                lock.release()
