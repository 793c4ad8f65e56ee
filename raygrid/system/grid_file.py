"""The file of a running grid on this machine, by which clients and `raygrid down` find it.

Every reader uses `running_grid`, which also checks whether the grid still runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raygrid.errors import SettingsError
from raygrid.settings.started_with import StartedWith
from raygrid.system.home import default_state_dir, expanded, usual_state_dir
from raygrid.system.lock import holder
from raygrid.system.logs import private
from raygrid.system.proc import start_time

NAME = "grid.json"


@dataclass(frozen=True, slots=True)
class GridFile:
    """A grid that runs on this machine.

    Attributes:
        url: where its parents listen.
        pid: its supervisor's process.
        started: the supervisor's start time in clock ticks since boot; a reused pid has another one.
        name: the grid's name.
        directory: its state: job store, blobs, logs.
        api_key: a valid key, if the grid requires one.
        ray_address: the address of its Ray cluster.
        started_with: the settings, racks and nodes that it was started with.
        ray_token: the token of that Ray cluster; drills need it.
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
        """Whether the supervisor that wrote the file still runs; a later process with its pid does not count."""
        return start_time(self.pid) == self.started

    def write(self) -> None:
        """Write the file; only its owner may read it, because it may hold a key."""
        path = self.directory / NAME
        temporary = path.with_suffix(".new")
        temporary.unlink(missing_ok=True)
        with open(temporary, "x", encoding="utf-8", opener=private) as file:
            json.dump({**asdict(self), "directory": str(self.directory)}, file, indent=1)
        temporary.replace(path)

    def remove(self) -> None:
        """Remove the file, at the end of the grid."""
        (self.directory / NAME).unlink(missing_ok=True)


def grid_file_path(name: str = "default", state_dir: Path | None = None) -> Path:
    """Where the file of a grid on this machine is; `default_state_dir` holds unless another directory is given."""
    base = expanded(state_dir).absolute() if state_dir else default_state_dir()
    return base / name / NAME


def running_grid(name: str = "default", state_dir: Path | None = None) -> GridFile | None:
    """The grid of that name on this machine, if it runs; arguments as of `grid_file_path`.

    Raises:
        SettingsError: a grid runs, but its file cannot be read; the message gives the remedy.
    """
    path = grid_file_path(name, state_dir)
    try:
        grid = _read(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        supervisor = holder(path.parent)
        if supervisor is None:
            return None  # the file is left from a grid that has ended
        raise SettingsError(
            f"grid {name} runs (process {supervisor.pid}), but its file {path} cannot be read "
            f"({type(error).__name__}); stop it with `{down_command(path.parent)}`, then start it again"
        ) from None
    return grid if grid.is_alive else None


def running_grids(state_dir: Path) -> Iterator[GridFile]:
    """All grids on this machine that keep their state there and run."""
    for file in sorted(expanded(state_dir).glob(f"*/{NAME}")):
        with contextlib.suppress(SettingsError):
            if (grid := running_grid(file.parent.name, state_dir)) is not None:
                yield grid


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
    """The command that stops the grid of a directory, for the caller's shell.

    `config` is the settings file that the grid was started with, if there was one: it may set the state directory.
    """
    return _command("down", directory, config, [] if config is None else ["--config", str(config)])


def deploy_command(directory: Path, config: Path | None = None) -> str:
    """The command that gives the grid of a directory the settings of a file, for the caller's shell.

    `config` is the file, if an option names it; `RAYGRID_CONFIG` holds for the command, too.
    """
    by_variable = config is None and os.environ.get("RAYGRID_CONFIG")
    return _command("deploy", directory, config, [] if by_variable else ["--config", str(config or "FILE")])


def _command(name: str, directory: Path, config: Path | None, options: list[str]) -> str:
    words = ["raygrid", name, *options]
    if directory.name != "default":
        words += ["--name", directory.name]
    elsewhere = config is None and directory.parent != usual_state_dir()
    return (f"RAYGRID_STATE_DIR={shlex.quote(str(directory.parent))} " if elsewhere else "") + shlex.join(words)
