"""The file that a grid on this machine leaves while it runs, so that clients and `raygrid down` find it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "grid.json"


@dataclass(frozen=True, slots=True)
class GridFile:
    """A grid that runs on this machine.

    Attributes:
        url: where its parents listen.
        pid: its supervisor's process.
        started: the supervisor's start time in clock ticks since boot, which tells it from a later process of that pid.
        name: the grid's name.
        directory: its state: job store, blobs, logs.
        api_key: a key that works, where the grid wants one.
        ray_address: for those who look at the Ray cluster behind it.
    """

    url: str
    pid: int
    started: int
    name: str
    directory: Path
    api_key: str | None = None
    ray_address: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the supervisor that wrote the file still lives."""
        return start_time(self.pid) == self.started

    def write(self) -> None:
        """Leave the file; only its owner may read it, for it may hold a key."""
        path = self.directory / NAME
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            json.dump({**asdict(self), "directory": str(self.directory)}, file, indent=1)
        temporary.replace(path)

    def remove(self) -> None:
        """The grid is no more."""
        (self.directory / NAME).unlink(missing_ok=True)


def start_time(pid: int) -> int | None:
    """A process's start time in clock ticks since boot; None where it does not live (a zombie does not)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])


def running_grid(name: str = "default", state_dir: Path | None = None) -> GridFile | None:
    """The grid of that name on this machine, if it runs."""
    base = state_dir or Path(os.environ.get("RAYGRID_STATE_DIR") or "~/.raygrid")
    path = base.expanduser().absolute() / name / NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        grid = GridFile(**{**values, "directory": Path(values["directory"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return grid if grid.is_alive else None
