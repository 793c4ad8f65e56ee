"""Paths that begin with `~`, the home directory of the user."""

from __future__ import annotations

import os
from pathlib import Path

from raygrid.errors import SettingsError


def expanded(path: str | Path) -> Path:
    """A path with the home directory in place of its `~`, if it begins with one.

    Raises:
        SettingsError: there is no home directory: HOME is not set, or empty, and the system does not know the user.
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


def usual_state_dir() -> Path | None:
    """Where grids of this machine keep their state unless settings name another place; None without a home."""
    try:
        return expanded(os.environ.get("RAYGRID_STATE_DIR") or "~/.raygrid").absolute()
    except SettingsError:
        return None
