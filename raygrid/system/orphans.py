"""Ends what is left of jobs whose agent is dead: processes that a supervisor is given as children.

A supervisor is a subreaper, so a process that lost its parents, its agent included, becomes its child, whatever its
mark is. Ray's own processes come to it in the same way; they carry a variable that agents do not pass on to pricers.
Used by the supervisors of local grids and of hosts.
"""

from __future__ import annotations

import contextlib
import os
import time

from raygrid.system.killing import end_children
from raygrid.system.proc import ChildrenOf, command_line, environment_of, process_of
from raygrid.system.processes import become_subreaper

VARIABLE = "RAYGRID_SUPERVISOR"
REAPER = b"raygrid.node.reaper"
_RAYS_OWN = b"ray"  # Ray's workers write their title, such as ray::IDLE, over their environment
_QUICK_S = 0.5


class Strays:
    """The children of this process that jobs have left; made before anything is started here, used by one thread.

    Args:
        runs_jobs: whether jobs run below this process. Where none do, nothing is killed before the end: on a cluster's
            head Ray's autoscaler keeps ssh masters, which lose their parents and write over their environment.
    """

    def __init__(self, *, runs_jobs: bool = True) -> None:
        become_subreaper()
        self._runs_jobs = runs_jobs
        self._mark = f"{os.getpid()}.{time.time_ns()}"
        self._own: set[int] = set()
        self._children = ChildrenOf(os.getpid())

    @property
    def variables(self) -> dict[str, str]:
        """What everything that this process starts has to have in its environment."""
        return {VARIABLE: self._mark}

    def spare(self, *pids: int) -> None:
        """Leave these children alone until the end, dead or alive; without any: all that there are now."""
        self._own.update(pids or self._now())

    def look(self) -> None:
        """Kill children that jobs have left, and reap the dead ones that this process was given. Takes microseconds."""
        given = self._now() - self._own
        if not given:
            return
        for pid in given:
            process = process_of(pid)
            if process is not None and process.is_zombie:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        if self._runs_jobs and any(self._is_stray(pid) for pid in given):
            end_children(self._is_stray, 0.0, _QUICK_S)  # again and again: one may fork on

    def end_all(self, patience_s: float, within_s: float) -> int:
        """Kill all children that this process was given, at the end of everything; gives how many are left.

        Args:
            patience_s: how long the reapers of agents get to clean up after these.
            within_s: when to give up.
        """
        until = time.monotonic() + patience_s
        while any(REAPER in command_line(pid) for pid in self._now()) and time.monotonic() < until:
            self.look()
            time.sleep(0.05)
        return end_children(lambda pid: pid not in self._own, 0.0, within_s)

    def _now(self) -> set[int]:
        return self._children.now() or set()

    def _is_stray(self, pid: int) -> bool:
        # Looked at twice: while a process becomes another program it has no environment for a moment.
        return pid not in self._own and not self._is_rays(pid) and not self._is_rays(pid)

    def _is_rays(self, pid: int) -> bool:
        marked = f"{VARIABLE}={self._mark}".encode() in (environment_of(pid) or b"").split(b"\0")
        return marked or command_line(pid).startswith(_RAYS_OWN)
