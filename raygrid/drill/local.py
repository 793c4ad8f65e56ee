"""Drills on a grid of this machine: how to get into its Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from raygrid.errors import SettingsError
from raygrid.local import GridFile, running_grid
from raygrid.system.grid_file import down_command
from raygrid.system.home import expanded


def way_into(grid: GridFile) -> Mapping[str, str]:
    """The environment in which Ray lets its owner into the cluster of a grid on this machine.

    Raises:
        SettingsError: the grid's file does not show how.
    """
    if grid.ray_address is None or grid.ray_token is None:
        raise SettingsError(
            f"grid {grid.name} was started by an older release, whose file does not lead into its Ray cluster; "
            f"stop it with `{down_command(grid.directory)}` and start it again"
        )
    return {"RAY_ADDRESS": grid.ray_address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": grid.ray_token}


def grid_at(url: str, state_dir: Path) -> GridFile | None:
    """The grid of this machine that listens at a URL, if one does."""
    for file in sorted(expanded(state_dir).glob("*/grid.json")):
        grid = running_grid(file.parent.name, state_dir)
        if grid is not None and grid.url == url.rstrip("/"):
            return grid
    return None
