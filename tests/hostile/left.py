"""What there is in the namespaces of an isolated user, to compare before a grid and after it."""

from __future__ import annotations

import os
import time
from collections.abc import Set
from pathlib import Path

from raygrid.system.ray_directory import of_user
from tests.hostile.inside import STATE, titles
from tests.support.waiting import pauses


def present() -> Set[str]:
    """Processes, mounts, files in shared directories, listening sockets and System V objects, each as a text."""
    processes = {f"process {pid}: {words[:150]}" for pid, words in titles().items() if pid not in (1, os.getpid())}
    mounts = {f"mount {line.split()[0]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    files = {
        f"file {path}"
        for place in ("/tmp", "/dev/shm", "/var/tmp")
        for path in Path(place).rglob("*")
        if not path.is_relative_to(STATE) and path != of_user("/tmp", os.getuid())  # which stays, but empty
    }
    return processes | mounts | files | _listening() | _system_v()


def left_since(before: Set[str], within_s: float) -> list[str]:
    """What there is that was not there before, once nothing of it ends any more or the time is over."""
    deadline = time.monotonic() + within_s
    for pause_s in pauses():
        found = present() - before
        if not found or time.monotonic() > deadline:
            return sorted(found)
        time.sleep(pause_s)
    raise AssertionError("pauses do not end")


def _listening() -> set[str]:
    found = set()
    for table, state in (("tcp", "0A"), ("tcp6", "0A")):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            if line.split()[3] == state:
                found.add(f"{table} {line.split()[1]}")
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8:
            found.add(f"socket {fields[7]}")
    return found


def _system_v() -> set[str]:
    return {
        f"System V {kind} {line.split()[1]}"
        for kind in ("shm", "sem", "msg")
        for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
    }
