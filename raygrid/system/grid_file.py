"""The file that a grid on this machine keeps while it runs, so that clients and `raygrid down` find it.

Every reader of that file uses `running_grid`, which also judges whether the grid lives.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raygrid.errors import SettingsError
from raygrid.settings.started_with import StartedWith
from raygrid.system.home import expanded, usual_state_dir
from raygrid.system.lock import holder
from raygrid.system.proc import start_time

NAME = "grid.json"


@dataclass(frozen=True, slots=True)
class GridFile:
    """A grid that runs on this machine.

    Attributes:
        url: where its parents listen.
        pid: its supervisor's process.
        started: the supervisor's start time in clock ticks since boot: a later process of the same pid has another one.
        name: the grid's name.
        directory: its state: job store, blobs, logs.
        api_key: a key that works, where the grid wants one.
        ray_address: the address of the Ray cluster behind it.
        started_with: the settings, racks and nodes that it was started with.
        ray_token: what lets its owner into that Ray cluster; drills need it.
    """

    url: str
    pid: int
    started: int
    name: str
    directory: Path
    api_key: str | None = None
    ray_address: str | None = None
    started_with: StartedWith | None = None
    ray_token: str | None = field(default=None, repr=False)

    @property
    def is_alive(self) -> bool:
        """Whether the supervisor that wrote the file still lives; a later process of its pid does not count."""
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


def file_of(name: str = "default", state_dir: Path | None = None) -> Path:
    """Where the file of a grid on this machine is.

    Args:
        name: the grid's name.
        state_dir: where grids keep their state; by default RAYGRID_STATE_DIR, then `~/.raygrid`.
    """
    base = state_dir or Path(os.environ.get("RAYGRID_STATE_DIR") or "~/.raygrid")
    return expanded(base).absolute() / name / NAME


def running_grid(name: str = "default", state_dir: Path | None = None) -> GridFile | None:
    """The grid of that name on this machine, if it runs; arguments as of `file_of`.

    Raises:
        SettingsError: a grid runs, but its file cannot be read; the message names the remedy.
    """
    path = file_of(name, state_dir)
    try:
        grid = _read(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        supervisor = holder(path.parent)
        if supervisor is None:
            return None  # a grid that has ended left the file
        raise SettingsError(
            f"grid {name} runs (process {supervisor.pid}), but its file {path} cannot be read "
            f"({type(error).__name__}); stop it with `{down_command(path.parent)}`, then start it again"
        ) from None
    return grid if grid.is_alive else None


def _read(values: dict[str, Any]) -> GridFile:
    started_with = values.get("started_with")
    if not values["url"]:
        raise ValueError("the file names no URL")
    return GridFile(
        **{
            **values,
            "directory": Path(values["directory"]),
            "started_with": None if started_with is None else StartedWith(**started_with),
        }
    )


def down_command(directory: Path, config: Path | None = None) -> str:
    """What stops the grid of that directory, in the shell that asks: with the same options as it was started with.

    Args:
        directory: the grid's own, named as the grid is.
        config: the settings file that was named, if any: it may name that directory.
    """
    words = ["raygrid", "down"]
    if config is not None:
        words += ["--config", str(config)]
    if directory.name != "default":
        words += ["--name", directory.name]
    elsewhere = config is None and directory.parent != usual_state_dir()
    return (f"RAYGRID_STATE_DIR={shlex.quote(str(directory.parent))} " if elsewhere else "") + shlex.join(words)
