"""What permissions let users do, as far as the files' modes and owners show it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from raygrid.system.accounts import Account


def can_change(path: str) -> bool:
    """Whether this user can write to a file or directory, perhaps after a change of its permissions."""
    try:
        return os.stat(path).st_uid == os.getuid() or os.access(path, os.W_OK)
    except OSError:
        return False


def closed_to(account: Account, directory: Path) -> str | None:
    """The first existing directory on the way to another one, and that one, which a user may not enter; None if none.

    As far as its permissions show it: access lists and other security modules are not considered.
    """
    for place in way_to(str(directory)):
        try:
            status = os.stat(place)
        except FileNotFoundError:
            return None
        mode = status.st_mode
        if status.st_uid == account.uid:
            mode >>= 6
        elif status.st_gid in account.groups:
            mode >>= 3
        if not mode & os.X_OK:
            return place
    return None


def way_to(directory: str) -> Iterator[str]:
    """The directories on the way to one, from the outside in, and that one."""
    place = ""
    for part in directory.strip("/").split("/"):
        place += f"/{part}"
        yield place
