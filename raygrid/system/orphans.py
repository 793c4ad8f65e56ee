"""Ends processes of jobs that outlived their agent; used by the supervisors of local grids and of hosts.

A supervisor is a subreaper: a process that lost its parents, including its agent, becomes its child, with or without a
mark. So do Ray's own orphans; they have an environment variable that agents do not pass on to pricers.
"""

from __future__ import annotations

import contextlib
import os
import time

from raygrid.system.killing import end_children
from raygrid.system.proc import ChildrenOf, command_line_of, environment_of, process_of
from raygrid.system.processes import become_subreaper

VARIABLE = "RAYGRID_SUPERVISOR"
REAPER = b"raygrid.node.reaper"
_RAYS_OWN = b"ray"  # Ray's workers overwrite their environment with a title, such as ray::IDLE
_QUICK_S = 0.5


class Strays:
    """Children of this process that jobs left behind. Create it before any child is started; used by one thread.

    Args:
        runs_jobs: whether jobs run below this process. If not, nothing is killed before the end: on a cluster's head,
            Ray's autoscaler keeps ssh masters, which are orphans and overwrite their environment.
    """

    def __init__(self, *, runs_jobs: bool = True) -> None:
        become_subreaper()
        self._runs_jobs = runs_jobs
        self._mark = f"{os.getpid()}.{time.time_ns()}"
        self._own: set[int] = set()
        self._children = ChildrenOf(os.getpid())

    @property
    def variables(self) -> dict[str, str]:
        """Variables for the environment of everything that this process starts."""
        return {VARIABLE: self._mark}

    def spare(self, *pids: int) -> None:
        """Never kill or reap these children; without arguments, all present children."""
        self._own.update(pids or self._now())

    def look(self) -> None:
        """Kill children that jobs left behind, and reap inherited zombies. Takes microseconds if there are none."""
        given = self._now() - self._own
        if not given:
            return
        for pid in given:
            process = process_of(pid)
            if process is not None and process.is_zombie:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        if self._runs_jobs and any(self._is_stray(pid) for pid in given):
            end_children(self._is_stray, 0.0, _QUICK_S)  # repeats, because a stray may fork

    def end_all(self, patience_s: float, within_s: float) -> int:
        """Kill all inherited children, when everything else has ended; returns how many are left after `within_s`.

        Before that, the reapers of agents have `patience_s` to clean up.
        """
        until = time.monotonic() + patience_s
        while any(REAPER in command_line_of(pid) for pid in self._now()) and time.monotonic() < until:
            self.look()
            time.sleep(0.05)
        return end_children(lambda pid: pid not in self._own, 0.0, within_s)

    def _now(self) -> set[int]:
        return self._children.now() or set()

    def _is_stray(self, pid: int) -> bool:
        # Checked twice: during exec a process has no environment for a moment.
        return pid not in self._own and not self._is_rays(pid) and not self._is_rays(pid)

    def _is_rays(self, pid: int) -> bool:
        marked = f"{VARIABLE}={self._mark}".encode() in (environment_of(pid) or b"").split(b"\0")
        return marked or command_line_of(pid).startswith(_RAYS_OWN)
