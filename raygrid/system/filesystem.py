"""Refuses a SQLite job store on a network file system; called by `start_grid`.

SQLite's write-ahead log needs memory that processes share, and reliable locks. On network file systems, such as a home
directory over NFS, databases were lost, and the error appeared only at the next start.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from raygrid.errors import SettingsError
from raygrid.settings.model import GridSettings
from raygrid.system.proc import Reader, file_systems, read_text

NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ncpfs", "glusterfs"})
NETWORK |= {f"fuse.{name}" for name in ("sshfs", "glusterfs", "s3fs", "gcsfuse", "rclone", "goofys")}


def require_local_job_store(settings: GridSettings, read: Reader = read_text) -> None:
    """Refuse a SQLite job store on a network file system.

    Raises:
        SettingsError: it would be on one; the message names the setting to change.
    """
    place = _directory_of(settings.database_url)
    if place is None:
        return
    kind = kind_of(place, read)
    if kind in NETWORK:
        raise SettingsError(
            f"the job store would be in {place}, on a network file system ({kind}), where SQLite loses acknowledged "
            "jobs: set RAYGRID_STATE_DIR (or storage.state_dir) to a directory on a disk of this machine, or "
            "storage.database to a PostgreSQL database"
        )


def kind_of(place: Path, read: Reader = read_text) -> str | None:
    """The kind of file system of a path, which need not exist yet; None if it cannot be read."""
    there = next((each for each in (place, *place.parents) if each.exists()), Path("/"))
    try:
        device = os.stat(there).st_dev
    except OSError:
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    return next((mount.kind for mount in file_systems(read) if mount.device == number), None)


def _directory_of(database: str | Path) -> Path | None:
    """The directory of a SQLite database; None for other databases, and for one in memory."""
    if isinstance(database, Path):
        return database.parent
    if not database.startswith("sqlite"):
        return None
    path = unquote(database.partition(":///")[2].partition("?")[0])
    return Path(path).absolute().parent if path and path != ":memory:" else None
