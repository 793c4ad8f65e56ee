"""How many processors this process may use: what is left by its affinity mask and by the quotas of its cgroups.

A container or a batch system gives a process a part of the machine in one of these two ways, and the machine's own
number of processors (`os.cpu_count`) shows neither.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from raygrid.system.cgroups import Mount, Reader, mounts, read_text


def usable_processors() -> int:
    """The number of processors that this process may use, at least 1."""
    try:
        affinity = len(os.sched_getaffinity(0))
    except OSError:
        affinity = os.cpu_count() or 1
    return within_quota(affinity, read_text)


def within_quota(affinity: int, read: Reader) -> int:
    """The number of processors that the quotas of this process's cgroups leave of those in its affinity mask.

    A quota that is no whole number is rounded down. Once a cgroup has used its quota, the kernel stops everything in it
    until the next period, raygrid's own processes included: the fraction is left to these, whose heartbeats must not
    be late.

    Args:
        affinity: how many processors the mask allows.
        read: reads a file by its absolute path; tests put fakes here.
    """
    quotas = [quota for mount in mounts("cpu", read) for quota in _quotas(mount, read)]
    return max(1, min(affinity, *(int(quota) for quota in quotas))) if quotas else max(1, affinity)


def _quotas(mount: Mount, read: Reader) -> Iterator[float]:
    """The quota of each cgroup from the process's own up to the root, in processors; the smallest one holds."""
    for place in mount.places:
        if mount.unified:
            quota, _, period = (read(str(place / "cpu.max")) or "").partition(" ")
        else:
            quota = read(str(place / "cpu.cfs_quota_us")) or ""
            period = read(str(place / "cpu.cfs_period_us")) or ""
        if quota.strip().isdigit() and period.strip().isdigit() and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)
