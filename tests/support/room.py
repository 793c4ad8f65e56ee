"""A machine with little memory: only the pricers below a directory use it."""

from __future__ import annotations

from pathlib import Path

from raygrid.system.memory import Gauge, Memory
from raygrid.system.proc import process_table
from raygrid.system.processes import mark_of

MB = 1024**2


def hog(size: int, seconds: float = 100.0, *, until: Path | None = None) -> str:
    """A script that uses so many MB for some seconds, or until a file is there."""
    last = f'while not os.path.exists("{until}"): time.sleep(0.02)' if until else f"time.sleep({seconds})"
    return f"exec python3 -c 'import os, time\nx = b\"x\" * ({size} << 20)\n{last}'"


class Room(Gauge):
    """Reports what the pricers below a directory leave of so many bytes."""

    def __init__(self, directory: Path, total: int) -> None:
        super().__init__()
        self._directory, self._room = str(directory), total

    @property
    def total(self) -> int:
        return self._room

    def look(self, reserve: int | None) -> Memory:
        used = sum(
            process.rss_bytes
            for process in process_table()
            if process.rss_bytes > 30 * MB and (mark_of(process.pid) or "").startswith(self._directory)
        )
        return Memory(self._room, self._room - used, 100 * MB if reserve is None else reserve, "the machine")
