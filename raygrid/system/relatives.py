"""Finds relatives of a process with psutil, for code that runs rarely."""

from __future__ import annotations

import psutil

from raygrid.system.proc import process_of


def descendants(ancestor: int) -> list[int]:
    """All running descendants of a process, parents before their children; empty if the process has ended."""
    try:
        found = psutil.Process(ancestor).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [each.pid for each in found if (process := process_of(each.pid)) is not None and not process.is_zombie]


def ancestor_called(name: str) -> int | None:
    """The nearest ancestor of this process with a name; None if there is none."""
    return next((process.pid for process in psutil.Process().parents() if process.name() == name), None)
