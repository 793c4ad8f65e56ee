"""A Ray node next to the head: a child process of the supervisor, which restarts it when it dies."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from raygrid.system.proc import Life, life_of
from raygrid.system.supervisor import start_child

FIRST_PAUSE_S = 1.0
MOST_PAUSE_S = 60.0
STEADY_S = 120.0
"""If a node has run this long, the first restart after its death waits for `FIRST_PAUSE_S` again."""

FORGET_S = 90.0
"""For so long Ray may list a dead node as alive; until then a new node of its name would get another name."""

_HEAD = ("gcs_server", "raylet")


class WorkerNode:
    """One further Ray node.

    Attributes:
        group: its rack.
        name: its name in the grid.
        log: file for the output of its processes.
    """

    def __init__(self, group: str, name: str, command: Sequence[str], log: Path) -> None:
        self.group = group
        self.name = name
        self.log = log
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at: float | None = None
        self._due_at: float | None = None
        self._give_up_waiting_at = 0.0
        self._pause_s = FIRST_PAUSE_S

    @property
    def pid(self) -> int | None:
        """Its process; None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start its process, which ends with the supervisor."""
        self._process = start_child(self._command, self.log)

    def restart_if_dead(self, now: float, is_known: Callable[[str], bool]) -> str | None:
        """Start the process again, after a pause, if it has ended; gives a line for the log, or None.

        Args:
            now: monotonic seconds.
            is_known: whether Ray lists a node of a name as alive.
        """
        if self.exit_code is None:
            self._started_at = self._started_at or now
            return None
        if self._due_at is None:
            steady = self._started_at is not None and now - self._started_at >= STEADY_S
            pause_s = FIRST_PAUSE_S if steady else self._pause_s
            self._pause_s = min(MOST_PAUSE_S, pause_s * 2)
            self._due_at = now + pause_s
            self._give_up_waiting_at = now + FORGET_S
            return f"node {self.name} died (exit code {self.exit_code}); it starts again in {pause_s:g} s"
        if now < self._due_at or (now < self._give_up_waiting_at and is_known(self.name)):
            return None
        self._due_at = None
        self._started_at = now
        self.start()
        return f"starting node {self.name} again"

    def terminate(self) -> None:
        """Send SIGTERM."""
        if self._process is not None:
            self._process.terminate()

    def end(self, grace_s: float) -> None:
        """Send SIGTERM, and after `grace_s` SIGKILL."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()


def head_processes() -> dict[Life, str]:
    """The processes that every Ray cluster needs: children of this process, started by `ray.init`."""
    found = {}
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            name = child.name()
            if name in _HEAD and (life := life_of(child.pid)) is not None:
                found[life] = name
    return found
