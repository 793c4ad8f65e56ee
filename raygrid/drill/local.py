"""Finds a grid of this machine, and the variables that give access to its Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raygrid.errors import SettingsError
from raygrid.local import GridFile, running_grid
from raygrid.system.grid_file import down_command
from raygrid.system.home import expanded


def way_into(grid: GridFile) -> Mapping[str, str]:
    """The environment variables with which a process can join the Ray cluster of a grid on this machine.

    Raises:
        SettingsError: the grid's file does not contain them.
    """
    if grid.ray_address is None or grid.ray_token is None:
        raise SettingsError(
            f"grid {grid.name} was started by an older release, whose file lacks the address or token of its Ray "
            f"cluster; stop it with `{down_command(grid.directory)}` and start it again"
        )
    return {"RAY_ADDRESS": grid.ray_address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": grid.ray_token}


def grid_at(url: str, state_dir: Path) -> GridFile | None:
    """The grid of this machine that listens at a URL; None if there is none."""
    for file in sorted(expanded(state_dir).glob("*/grid.json")):
        grid = running_grid(file.parent.name, state_dir)
        if grid is not None and grid.url == url.rstrip("/"):
            return grid
    return None
