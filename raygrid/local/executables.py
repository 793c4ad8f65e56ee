"""Whether the commands of the pricers can be started on this machine, said before a grid is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from raygrid.config import GridSettings, Pricer
from raygrid.errors import SettingsError


def require_executables(settings: GridSettings) -> None:
    """Refuse pricers whose program is not there.

    Raises:
        SettingsError: names the pricer and where it was looked for.
    """
    for name, pricer in settings.pricers.items():
        if why := _why_not(pricer):
            raise SettingsError(f"pricer {name!r} cannot be started: {why}")


def _why_not(pricer: Pricer) -> str | None:
    program = pricer.command[0]
    if "{" in program:
        return None  # known only with the job
    if "/" not in program:
        path = pricer.env.get("PATH") or os.environ.get("PATH") or os.defpath
        there = shutil.which(program, path=path) is not None
        return None if there else f"there is no program {program!r} in the PATH {path}"
    found = Path(program)
    if not found.is_absolute():
        return f"its path {program!r} is relative, but it runs in the job's directory; write it from the root on"
    if not found.is_file():
        return f"{found} is not a file" if found.exists() else f"there is no file {found}"
    executable = os.access(found, os.X_OK)
    return None if executable else f"{found} is not executable; make it so with: chmod +x {found}"
