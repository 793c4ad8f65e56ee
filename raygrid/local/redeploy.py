"""New settings for a grid that runs on this machine: which can change while it runs, and what changes with them.

The parents are deployed anew by `parent/ingress.py`, which knows Ray; here it is decided what they get, and the grid's
file is kept true, so that a later `raygrid up` compares with what really runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from raygrid.errors import SettingsError
from raygrid.settings.model import GridSettings
from raygrid.settings.started_with import StartedWith
from raygrid.system.grid_file import GridFile, down_command
from raygrid.system.lock import try_lock

LOCK = "deploy.lock"

# What a running grid cannot change: where it listens and keeps its state, how its groups are called, its caches' sizes.
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
_SALT = "compared at once, and not kept"
_SECRET = {("storage", "database"), ("storage", "blobs")}


@dataclass(frozen=True, slots=True)
class Redeployment:
    """What a running grid is to follow.

    Attributes:
        settings: the new settings.
        kept: sentences about settings that stay as they run, as the new ones do not mention them.
        changes: what changes, a line each.
    """

    settings: GridSettings
    kept: tuple[str, ...]
    changes: tuple[str, ...]


def redeployment(running: GridSettings, asked: GridSettings) -> Redeployment:
    """What a grid follows that runs with some settings and is asked to change to others.

    A setting that needs a restart stays as it runs where the new settings leave it at its default: `raygrid up --port`
    is not repeated with each deployment.

    Raises:
        SettingsError: a setting that needs a restart is asked for; names each.
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
            asked_for = "another one" if path in _SECRET else f"{mine}, asked for is {theirs}"
            refused.append(f"{name}: it runs with {asked_for}")
    if refused:
        down = down_command(running.grid_dir, running.config)
        raise SettingsError(
            "\n  - ".join(("these settings cannot change while the grid runs; nothing was changed:", *refused))
            + f"\nTo change them stop the grid with `{down}`, and start it with the new settings"
        )
    before, after = StartedWith.of(running, 1, 1, _SALT), StartedWith.of(settings, 1, 1, _SALT)
    return Redeployment(settings, tuple(kept), tuple(before.changes_to(after)))


def note(grid: GridFile, settings: GridSettings) -> None:
    """Write into the grid's file what it follows now."""
    with_ = grid.started_with
    keys = settings.http.api_keys
    key = keys[0].key.get_secret_value() if keys else None
    if with_ is not None:
        with_ = StartedWith.of(settings, with_.racks, with_.nodes, with_.salt)
    replace(grid, api_key=key, started_with=with_).write()


@contextlib.contextmanager
def one_at_a_time(grid: GridFile) -> Iterator[None]:
    """Hold the right to deploy on a grid of this machine.

    Raises:
        SettingsError: another deployment is under way.
    """
    lock = try_lock(grid.directory / LOCK)
    if lock is None:
        raise SettingsError(f"another `raygrid deploy` on grid {grid.name} is under way; wait for its end")
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
