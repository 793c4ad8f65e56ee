"""Finds a grid of this machine, and the variables that give access to its Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raygrid.errors import SettingsError
from raygrid.system.grid_file import GridFile, down_command, running_grids


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
    return next((grid for grid in running_grids(state_dir) if grid.url == url.rstrip("/")), None)
