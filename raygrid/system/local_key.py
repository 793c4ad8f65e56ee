"""A key for a grid without keys on a machine that does not show which user a connection belongs to."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from raygrid.system.logs import private
from raygrid.system.peers import Peers

NAME = "local_key"
_BYTES = 24


def needed(directory: Path) -> str | None:
    """The key of the grid with this directory; None if connections show their users, so that it needs none.

    It is made once and kept. Clients of the same user find it in the grid's file, as they find the URL.

    Raises:
        OSError: the file of the key cannot be read or made.
    """
    try:
        Peers().close()
    except OSError:
        return _kept(directory / NAME)
    return None


def _kept(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="ascii")
    new = path.with_name(f"{NAME}.{os.getpid()}")
    new.unlink(missing_ok=True)
    with open(new, "x", encoding="ascii", opener=private) as file:
        file.write(secrets.token_hex(_BYTES))
    with contextlib.suppress(FileExistsError):  # another process of the grid was faster
        path.hardlink_to(new)
    new.unlink()
    return path.read_text(encoding="ascii")
