"""Lets one of all agents of a machine at a time run a suspect's last attempt.

A job that ends every process it can reach ends the attempts of all agents of its machine. Which of several suspects it
was can only be told if no other one runs at that time, be it under another agent or in another group.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
        try:
            lock = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            logger.warning("cannot open %s: %s; other suspects may run at the same time", self._path, error)
            yield not given_up()
            return
        try:
            yield self._wait(lock, given_up)
        finally:
            os.close(lock)

    def _wait(self, lock: int, given_up: Callable[[], bool]) -> bool:
        while not given_up():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(LOOK_S)
            except OSError as error:
                logger.warning("cannot lock %s: %s; other suspects may run at the same time", self._path, error)
                return True
            else:
                return True
        return False
