"""The part of a fault on one machine: finds processes and sends them signals. Does not import Ray.

Targets are chosen before the fault, so that the fault itself takes microseconds. A separate process (`thaw.py`) thaws
frozen processes, even if the drill or the machine's Ray has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil

from raygrid.drill.thaw import thaw
from raygrid.system.proc import (
    Life,
    Process,
    environment_of,
    life_of,
    name_of,
    process_of,
    process_table,
    title_of,
)
from raygrid.system.relatives import ancestor_called, descendants

ARMED = b"armed\n"


class MachineFaults:
    """Chooses and injects a fault on one machine; the methods return Ray-serializable values."""

    def __init__(self) -> None:
        self._pids: list[int] = []
        self._below: int | None = None
        self._freeze_s = 0.0
        self._frozen: list[Life] = []
        self._thawer: subprocess.Popen[bytes] | None = None

    def target_processes(self, pids: Sequence[int], freeze_s: float = 0.0) -> list[str]:
        """Choose processes to kill, or to freeze for some seconds; returns their titles."""
        titles = [title_of(pid) for pid in pids]
        if not all(titles):
            raise ProcessLookupError(f"some of the processes {list(pids)} have ended")
        self._pids, self._freeze_s = list(pids), freeze_s
        self._ready()
        return titles

    def target_machine(self, freeze_s: float) -> list[str]:
        """Choose this whole Ray node: its raylet and all descendants, except this process and its own."""
        raylet = ancestor_called("raylet")
        if raylet is None:
            raise ProcessLookupError("this process is not below a raylet")
        self._below, self._freeze_s = raylet, freeze_s
        self._ready()
        return [title_of(raylet)]

    def target_head(self) -> list[str]:
        """Choose the GCS process, which has the same parent as this node's raylet."""
        gcs = gcs_pid()
        if gcs is None:
            raise ProcessLookupError("no GCS process runs here")
        return self.target_processes([gcs])

    def why_head_must_live(self) -> str | None:
        """Why the head must not be killed here; None if it would restart with its state."""
        gcs = gcs_pid()
        if gcs is None:
            return "the head's GCS process was not found"
        environment = _environment(gcs)
        if environment.get("RAY_gcs_storage") != "rocksdb" and "RAY_REDIS_ADDRESS" not in environment:
            return "the head keeps its state in memory only, so its death ends the cluster (or the grid here)"
        if any("raygrid.cluster.supervisor" in title_of(process.pid) for process in psutil.Process(gcs).parents()):
            return None
        return "no supervisor would restart the head; start it with `raygrid host start --head`"

    def inject(self) -> int:
        """Kill or freeze the chosen processes; returns how many there were."""
        if self._below is not None:
            self._pids = [pid for pid in (self._below, *descendants(self._below)) if pid not in self._spared()]
        if self._freeze_s <= 0:
            for pid in self._pids:
                os.kill(pid, signal.SIGKILL)
            return len(self._pids)
        self._frozen = [life for pid in self._pids if (life := life_of(pid)) is not None]
        self._arm()
        for process in self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP)
        return len(self._frozen)

    def thaw(self) -> None:
        """Thaw everything at once that this object froze."""
        thaw(self._frozen)

    def _spared(self) -> set[int]:
        me = os.getpid()
        return {me, *descendants(me)}

    def _ready(self) -> None:
        if self._freeze_s > 0 and self._thawer is None:
            self._thawer = subprocess.Popen(
                [sys.executable, "-P", "-m", "raygrid.drill.thaw"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # it must outlive the drill
            )
            self._expect(ARMED)

    def _arm(self) -> None:
        """Give the thawing process its list, before anything is frozen."""
        assert self._thawer is not None
        assert self._thawer.stdin is not None
        words = [f"{self._freeze_s}", *(f"{pid}:{started}" for pid, started in self._frozen)]
        self._thawer.stdin.write(" ".join(words).encode() + b"\n")
        self._thawer.stdin.flush()
        self._expect(ARMED)

    def _expect(self, word: bytes) -> None:
        assert self._thawer is not None
        assert self._thawer.stdout is not None
        if self._thawer.stdout.readline() != word:
            raise RuntimeError("the process that should thaw the frozen ones did not start; nothing was frozen")


def gcs_pid() -> int | None:
    """The GCS process beside the raylet of this process's node."""
    raylet = ancestor_called("raylet")
    starter = process_of(raylet) if raylet is not None else None
    if starter is None:
        return None
    return next((process.pid for process in process_table() if _is_gcs(process, starter.parent)), None)


def _is_gcs(process: Process, starter: int) -> bool:
    return process.parent == starter and not process.is_zombie and name_of(process.pid) == "gcs_server"


def _environment(pid: int) -> dict[str, str]:
    pairs = (environment_of(pid) or b"").decode(errors="replace").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
