"""Paths below the home directory of the user, and the directory where grids keep their state."""

from __future__ import annotations

import os
from pathlib import Path

from raygrid.errors import SettingsError


def expanded(path: str | Path) -> Path:
    """A path with a leading `~` replaced by the home directory.

    Raises:
        SettingsError: there is no home directory: HOME is unset or empty, and the system does not know the user.
    """
    if not str(path).startswith("~"):
        return Path(path)
    try:
        found = Path(path).expanduser()
    except RuntimeError:
        found = None
    if found is None or (Path(path).parts[0] == "~" and os.environ.get("HOME") == ""):
        raise SettingsError(
            f"there is no home directory for {path}: set HOME; or set RAYGRID_STATE_DIR, for the state of grids here, "
            "and paths in settings and options to absolute paths"
        )
    return found


def default_state_dir() -> Path:
    """Where grids keep their state unless settings name another directory: RAYGRID_STATE_DIR, then `~/.raygrid`.

    Raises:
        SettingsError: there is no home directory.
    """
    return expanded(os.environ.get("RAYGRID_STATE_DIR") or "~/.raygrid").absolute()


def usual_state_dir() -> Path | None:
    """As `default_state_dir`; None without a home directory."""
    try:
        return default_state_dir()
    except SettingsError:
        return None
