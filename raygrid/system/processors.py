"""Counts the processors that this process may use, by its affinity mask and the quotas of its cgroups.

Containers and batch systems limit a process in one of these two ways; `os.cpu_count` shows neither.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from raygrid.system.cgroups import Hierarchy, hierarchies
from raygrid.system.proc import Reader, read_text


def usable_processors() -> int:
    """The number of processors that this process may use, at least 1."""
    try:
        affinity = len(os.sched_getaffinity(0))
    except OSError:
        affinity = os.cpu_count() or 1
    return within_quota(affinity, read_text)


def within_quota(affinity: int, read: Reader) -> int:
    """The smaller of the affinity mask's number of processors and the quotas of this process's cgroups.

    A fractional quota is rounded down. Once a cgroup has used its quota, the kernel stops everything in it until the
    next period, raygrid's own processes included; the fraction is kept for these, whose heartbeats must not be late.
    """
    quotas = [int(quota) for each in hierarchies("cpu", read) for quota in _quotas(each, read)]
    return max(1, min(affinity, *quotas)) if quotas else max(1, affinity)


def _quotas(hierarchy: Hierarchy, read: Reader) -> Iterator[float]:
    """The quota of each cgroup from the process's own up to the root, in processors."""
    for place in hierarchy.directories:
        if hierarchy.unified:
            quota, _, period = (read(str(place / "cpu.max")) or "").partition(" ")
        else:
            quota = read(str(place / "cpu.cfs_quota_us")) or ""
            period = read(str(place / "cpu.cfs_period_us")) or ""
        if quota.strip().isdigit() and period.strip().isdigit() and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)
