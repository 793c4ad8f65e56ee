"""Turns for suspects: of all agents of a machine, only one at a time runs the last attempt of a suspect job.

A job that kills every process it can reach ends the attempts of all agents of its machine. The culprit is found only if
no other suspect runs at that time, under any agent and in any group.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import BaseFileLock

from raygrid.models import AttemptId, AttemptReport, Outcome
from raygrid.node.attempt.stages import FinishedAttempt
from raygrid.node.limits.running import Running
from raygrid.node.limits.watchdog import Watchdog
from raygrid.system.lock import try_lock
from raygrid.system.machine import machine_id

logger = logging.getLogger(__name__)

LOOK_S = 0.2


class SuspectTurns:
    """Turns among the agents of one grid on one machine, which share `directory`."""

    def __init__(self, directory: Path, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._path = directory / f"apart-{machine_id()}.lock"

    def run(self, attempt: AttemptId, run: Callable[[], FinishedAttempt]) -> FinishedAttempt:
        """Run an attempt while no other agent of this machine runs a suspect's last attempt."""
        waiting = Running(attempt, time.monotonic(), math.inf, None, sys.maxsize, ())
        self._watchdog.watch(waiting)
        try:
            with self.turn(lambda: waiting.killed_for is not None) as has_turn:
                self._watchdog.release(waiting)
                if has_turn:
                    return run()
        finally:
            self._watchdog.release(waiting)
        return FinishedAttempt(AttemptReport(attempt, waiting.killed_for or Outcome.CANCELLED, message=waiting.message))

    @contextlib.contextmanager
    def turn(self, given_up: Callable[[], bool]) -> Iterator[bool]:
        """Wait for the turn, and keep it until the context ends; the context gets False if `given_up` became true.

        On a file system without locks, the turn begins at once.
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
            logger.warning("%s cannot be locked: %s; other suspects may run at the same time", self._path, error)
            has_turn = not given_up()
        try:
            yield has_turn
        finally:
            if lock is not None:
                lock.release()
