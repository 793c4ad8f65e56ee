"""Whether the job store of a grid on this machine lies on a disk of this machine.

SQLite's log (WAL) needs memory that processes share and locks that hold. On a network file system, such as a home
directory over NFS, databases were lost without an error until the next start. Called by `start_grid`.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from raygrid.errors import SettingsError
from raygrid.settings.model import GridSettings

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "glusterfs"})
NETWORK |= {f"fuse.{name}" for name in ("sshfs", "glusterfs", "s3fs", "gcsfuse", "rclone", "goofys")}
MOUNTS = Path("/proc/self/mountinfo")


def require_local_job_store(settings: GridSettings, mounts: Path = MOUNTS) -> None:
    """Refuse to keep a SQLite job store on a network file system.

    Raises:
        SettingsError: it would lie on one; the message names the setting.
    """
    place = _directory_of(settings.database_url)
    if place is None:
        return
    kind = kind_of(place, mounts)
    if kind in NETWORK:
        raise SettingsError(
            f"the job store would lie in {place}, a network file system ({kind}), where SQLite loses what was "
            "acknowledged: set RAYGRID_STATE_DIR (or storage.state_dir) to a directory on a disk of this machine, or "
            "storage.database to a PostgreSQL database"
        )


def kind_of(place: Path, mounts: Path = MOUNTS) -> str | None:
    """The kind of file system that a place lies on, or would lie on; None if it cannot be read."""
    there = next((each for each in (place, *place.parents) if each.exists()), None)
    try:
        device = os.stat(there or "/").st_dev
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        # See proc(5): …, major:minor, …, then after a lone dash the kind.
        before, _, after = line.partition(" - ")
        if before.split()[2:3] == [number]:
            return after.split()[0]
    return None


def _directory_of(database: str | Path) -> Path | None:
    """Where a SQLite database lies; None for other databases, and for one in memory."""
    if isinstance(database, Path):
        return database.parent
    if not database.startswith("sqlite"):
        return None
    path = unquote(database.partition(":///")[2].partition("?")[0])
    return Path(path).absolute().parent if path and path != ":memory:" else None
