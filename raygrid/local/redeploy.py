"""New settings for a grid that runs on this machine: which settings can change, and what changes.

`parent/ingress.py` deploys the parents again. This module decides which settings they get, and updates the grid's file,
so that a later `raygrid up` compares with the settings in use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from raygrid.errors import SettingsError
from raygrid.settings.model import GridSettings
from raygrid.settings.started_with import StartedWith
from raygrid.system import local_key
from raygrid.system.grid_file import GridFile, down_command
from raygrid.system.lock import try_lock

LOCK = "deploy.lock"

# A running grid cannot change its addresses, the places of its state, the names of its groups and its caches' sizes.
FIXED = (
    ("group_prefix",),
    ("http", "host"),
    ("http", "port"),
    ("storage", "state_dir"),
    ("storage", "database"),
    ("storage", "blobs"),
    ("storage", "blob_options"),
    ("node", "cache"),
    ("node", "data_cache"),
)
_SALT = "for two values that are compared at once and not stored"
_SECRET = {("storage", "database"), ("storage", "blobs")}


@dataclass(frozen=True, slots=True)
class Redeployment:
    """The settings that a running grid gets.

    Attributes:
        settings: the new settings.
        kept: one sentence for each setting that keeps its value, because the new settings leave it out.
        changes: one line for each change.
    """

    settings: GridSettings
    kept: tuple[str, ...]
    changes: tuple[str, ...]


def redeployment(running: GridSettings, asked: GridSettings) -> Redeployment:
    """Combine the settings of a running grid with new ones.

    A setting that needs a restart keeps its value if the new settings have its default, so that `raygrid up --port`
    need not be repeated with each deployment.

    Raises:
        SettingsError: the new settings change one that needs a restart; the message names each.
    """
    default, refused, kept = GridSettings.model_construct(), [], []
    settings = asked
    for path in FIXED:
        mine, theirs = _at(running, path), _at(asked, path)
        if mine == theirs:
            continue
        name = ".".join(path)
        if theirs == _at(default, path) or path == ("storage", "state_dir"):
            kept.append(f"{name} stays {'as it is' if path in _SECRET else mine}")
            settings = _with(settings, path, mine)
        else:
            values = "another value" if path in _SECRET else f"{mine}, you asked for {theirs}"
            refused.append(f"{name}: the grid uses {values}")
    if refused:
        down = down_command(running.grid_dir, running.config)
        raise SettingsError(
            "\n  - ".join(("these settings cannot change while the grid runs; nothing was changed:", *refused))
            + f"\nTo change them stop the grid with `{down}`, and start it with the new settings"
        )
    before, after = StartedWith.of(running, 1, 1, _SALT), StartedWith.of(settings, 1, 1, _SALT)
    return Redeployment(settings, tuple(kept), tuple(before.changes_to(after)))


def note(grid: GridFile, settings: GridSettings) -> None:
    """Write the new settings into the grid's file."""
    with_ = grid.started_with
    key = settings.http.own_key or local_key.needed(grid.directory)
    if with_ is not None:
        with_ = StartedWith.of(settings, with_.racks, with_.nodes, with_.salt)
    replace(grid, api_key=key, started_with=with_).write()


@contextlib.contextmanager
def one_at_a_time(grid: GridFile) -> Iterator[None]:
    """Let one process at a time deploy on a grid of this machine.

    Raises:
        SettingsError: another deployment is running.
    """
    lock = try_lock(grid.directory / LOCK)
    if lock is None:
        raise SettingsError(f"another `raygrid deploy` on grid {grid.name} is running; wait for its end")
    with lock:
        yield


def _at(settings: GridSettings, path: tuple[str, ...]) -> Any:
    value: Any = settings
    for name in path:
        value = getattr(value, name)
    return value


def _with(settings: GridSettings, path: tuple[str, ...], value: Any) -> GridSettings:
    if len(path) == 1:
        return settings.model_copy(update={path[0]: value})
    section, name = path
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update={name: value})})
