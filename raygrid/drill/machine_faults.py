"""What a drill does on one machine: it finds processes and sends them signals. Does not import Ray.

The targets are chosen before the fault, so that the fault itself takes microseconds. A process of its own (`thaw.py`)
thaws what is frozen, even if the drill or the machine's Ray has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import psutil

from raygrid.system.proc import Process, environment_of, name_of, process_of, process_table, start_time, title_of

ARMED = b"armed\n"


class MachineFaults:
    """The part of a fault that affects one machine."""

    def __init__(self) -> None:
        self._pids: list[int] = []
        self._below: int | None = None
        self._freeze_s = 0.0
        self._frozen: list[tuple[int, int]] = []
        self._thawer: subprocess.Popen[bytes] | None = None

    def target_processes(self, pids: Sequence[int], freeze_s: float = 0.0) -> list[str]:
        """Choose processes to kill, or to freeze for some seconds; gives their titles."""
        titles = [title_of(pid) for pid in pids]
        if not all(titles):
            raise ProcessLookupError(f"of the processes {list(pids)}, not all live any more")
        self._pids, self._freeze_s = list(pids), freeze_s
        self._ready()
        return titles

    def target_machine(self, freeze_s: float) -> list[str]:
        """Choose this Ray node as a whole: its raylet and every process below it except this one."""
        raylet = ancestor("raylet")
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
        """Why the head must not be killed here; None where it comes back with its books."""
        gcs = gcs_pid()
        if gcs is None:
            return "the head's GCS process was not found"
        environment = _environment(gcs)
        if environment.get("RAY_gcs_storage") != "rocksdb" and "RAY_REDIS_ADDRESS" not in environment:
            return "the head keeps its books in memory only, so its death ends the cluster (or the grid here)"
        if any("raygrid.cluster.supervisor" in title_of(process.pid) for process in psutil.Process(gcs).parents()):
            return None
        return "nothing here would start the head again; start it with `raygrid host start --head`"

    def inject(self) -> int:
        """Kill or freeze the chosen processes; gives how many there were."""
        if self._below is not None:
            self._pids = [pid for pid in (self._below, *below(self._below)) if pid not in self._spared()]
        if self._freeze_s <= 0:
            for pid in self._pids:
                os.kill(pid, signal.SIGKILL)
            return len(self._pids)
        self._frozen = [(pid, started) for pid in self._pids if (started := start_time(pid)) is not None]
        self._arm()
        for pid, _ in self._frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return len(self._frozen)

    def thaw(self) -> None:
        """Thaw at once everything that is frozen here."""
        thaw(self._frozen)

    def _spared(self) -> set[int]:
        me = os.getpid()
        return {me, *below(me)}

    def _ready(self) -> None:
        if self._freeze_s > 0 and self._thawer is None:
            self._thawer = subprocess.Popen(
                [sys.executable, "-P", "-m", "raygrid.drill.thaw"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # it must outlive everything else of this drill
            )
            self._expect(ARMED)

    def _arm(self) -> None:
        """Have the thawing process ready before anything is frozen."""
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
            raise RuntimeError("the process that thaws what is frozen did not start; nothing was frozen")


def thaw(frozen: Sequence[tuple[int, int]]) -> None:
    """Let processes go on, unless their pids belong to others by now."""
    for pid, started in frozen:
        if start_time(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def ancestor(name: str) -> int | None:
    """The nearest process above this one that has a name."""
    return next((process.pid for process in psutil.Process().parents() if process.name() == name), None)


def below(root: int) -> list[int]:
    """All living processes below one, parents before their children."""
    try:
        found = psutil.Process(root).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process.pid for process in found if start_time(process.pid) is not None]


def gcs_pid() -> int | None:
    """The GCS process beside the raylet of this process's node."""
    raylet = ancestor("raylet")
    starter = process_of(raylet) if raylet is not None else None
    if starter is None:
        return None
    return next((process.pid for process in process_table() if _is_gcs(process, starter.parent)), None)


def _is_gcs(process: Process, starter: int) -> bool:
    return process.parent == starter and not process.is_zombie and name_of(process.pid) == "gcs_server"


def _environment(pid: int) -> dict[str, str]:
    pairs = (environment_of(pid) or b"").decode(errors="replace").split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
