"""How many processors this process may use: what is left by its affinity mask and by the quotas of its cgroups.

A container or a batch system gives a process a part of the machine in one of these two ways, and the machine's own
number of processors (`os.cpu_count`) shows neither.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

Reader = Callable[[str], str | None]
"""Gives the text of a file, or None where it cannot be read."""


def usable_processors() -> int:
    """The number of processors that this process may use, at least 1."""
    try:
        affinity = len(os.sched_getaffinity(0))
    except OSError:
        affinity = os.cpu_count() or 1
    return within_quota(affinity, _read)


def within_quota(affinity: int, read: Reader) -> int:
    """The number of processors that the quotas of this process's cgroups leave of those in its affinity mask.

    A quota that is no whole number is rounded down. Once a cgroup has used its quota, the kernel stops everything in it
    until the next period, raygrid's own processes included: the fraction is left to these, whose heartbeats must not
    be late.

    Args:
        affinity: how many processors the mask allows.
        read: reads a file by its absolute path; tests put fakes here.
    """
    quotas = [quota for mount in _mounts(read) for quota in _quotas(mount, read)]
    return max(1, min(affinity, *(int(quota) for quota in quotas))) if quotas else max(1, affinity)


@dataclass(frozen=True, slots=True)
class _Mount:
    """Where the cgroups of a hierarchy are mounted, and where this process is in it."""

    unified: bool
    at: PurePosixPath
    own: PurePosixPath


def _mounts(read: Reader) -> Iterator[_Mount]:
    """The hierarchies that may hold a quota: that of version 2, and that of version 1 for the controller `cpu`."""
    paths = dict(_own_paths(read("/proc/self/cgroup") or ""))
    for line in (read("/proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        unified = kind[0] == "cgroup2"
        if not unified and not (kind[0] == "cgroup" and "cpu" in kind[2].split(",")):
            continue
        path = paths.get("" if unified else "cpu")
        if path is not None:
            root, at = (PurePosixPath(_unescaped(fields[number])) for number in (3, 4))
            # In a container its own cgroup may be mounted as the root, while the path is that on the host.
            below = PurePosixPath(path).relative_to(root) if PurePosixPath(path).is_relative_to(root) else "."
            yield _Mount(unified, at, at / below)


def _own_paths(text: str) -> Iterator[tuple[str, str]]:
    """The process's path in each hierarchy, by controller; that of version 2 under an empty name."""
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(",") if number != "0" else [""]:
            yield controller, path


def _quotas(mount: _Mount, read: Reader) -> Iterator[float]:
    """The quota of each cgroup from the process's own up to the root, in processors; the smallest one holds."""
    places = [mount.own, *mount.own.parents]
    for place in places[: places.index(mount.at) + 1] if mount.at in places else [mount.at]:
        if mount.unified:
            quota, _, period = (read(str(place / "cpu.max")) or "").partition(" ")
        else:
            quota = read(str(place / "cpu.cfs_quota_us")) or ""
            period = read(str(place / "cpu.cfs_period_us")) or ""
        if quota.strip().isdigit() and period.strip().isdigit() and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)


def _unescaped(text: str) -> str:
    """A path as it stands in mountinfo, where blanks and backslashes are written in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
