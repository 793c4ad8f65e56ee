"""Where Ray keeps its sessions, with sockets and logs: on a cluster's machine, and for grids on one machine.

All grids of a user on one machine keep theirs below one directory, which sandboxes hide from pricers as a whole. So a
grid that starts later is hidden, too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from raygrid.errors import SettingsError

SHORT = ("/tmp", "/var/tmp")  # noqa: S108 - only the owner can read the directories that are made there


def of_cluster(environment: Mapping[str, str]) -> Path:
    """Where Ray keeps its session on a cluster's machine, if it is started in this environment."""
    return Path(environment.get("RAY_TMPDIR") or environment.get("TMPDIR") or "/tmp") / "ray"  # noqa: S108 - Ray's choice


def of_user(place: str | Path, uid: int) -> Path:
    """The directory of a user's grids in a temporary directory."""
    return Path(place) / f"raygrid-{uid}"


def ray_directories(environment: Mapping[str, str], uid: int) -> tuple[Path, ...]:
    """Every directory where Ray may keep a session of this user."""
    places = [environment["TMPDIR"]] if environment.get("TMPDIR") else []
    return (of_cluster(environment), *(of_user(place, uid) for place in (*places, *SHORT)))


def make_private(directory: Path) -> None:
    """Make a directory that only its owner can use, unless it is there.

    Raises:
        SettingsError: another user made it, as every user can in a temporary directory.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise SettingsError(
            f"{directory} is needed for Ray's files, but it does not belong to you: remove it, or set TMPDIR to "
            "another directory"
        )
    directory.chmod(0o700)
