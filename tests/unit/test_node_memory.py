"""How much memory is left, on machines and in cgroups of both versions, and how much of it is kept free."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from raygrid.system.memory import Gauge, Memory, usual_reserve
from raygrid.system.proc import kernel_kills

MB, GB = 1024**2, 1024**3
MEMINFO = "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
CONTAINER_V1 = "31 23 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def left(files: Mapping[str, str], mounts: str = "", own: str = "", reserve: int | None = 0) -> Memory:
    known = {"/proc/meminfo": MEMINFO, "/proc/self/mountinfo": mounts, "/proc/self/cgroup": own, **files}
    found = Gauge(known.get).look(reserve)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("total", "reserve"),
    [
        (1 * GB, 128 * MB),
        (2 * GB, 256 * MB),
        (4 * GB, 256 * MB),
        (24 * GB, 24 * GB // 20),
        (64 * GB, 64 * GB // 20),
        (512 * GB, 4 * GB),
    ],
)
def test_the_usual_reserve_suits_small_and_large_machines(total: int, reserve: int) -> None:
    """A twentieth, at least 256 MB where the machine has that to spare, and at most 4 GB."""
    assert usual_reserve(total) == reserve


def test_a_machine_without_limits_has_the_memory_that_the_kernel_reports() -> None:
    """What the kernel takes for available counts, and free swap with it."""
    assert left({}) == Memory(16 * GB, 8 * GB, 0, "the machine")
    swap = MEMINFO.replace("SwapFree: 0 kB", "SwapFree: 1048576 kB")
    assert left({"/proc/meminfo": swap}).available == 9 * GB


def test_a_cgroup_of_version_2_limits_what_is_left() -> None:
    """Pages of files that are on disk already count as free; so do those of the kernel that it can drop."""
    files = {
        "/sys/fs/cgroup/job/memory.max": str(4 * GB),
        "/sys/fs/cgroup/job/memory.high": "max\n",
        "/sys/fs/cgroup/job/memory.current": f"{3 * GB}\n",
        "/sys/fs/cgroup/job/memory.stat": (
            f"anon {GB}\nactive_file {GB}\ninactive_file {GB}\nfile_dirty {256 * MB}\nslab_reclaimable {64 * MB}\n"
        ),
    }
    found = left(files, V2, "0::/job\n")
    assert (found.total, found.available) == (4 * GB, GB + 2 * GB - 256 * MB + 64 * MB)
    assert found.of == "cgroup /sys/fs/cgroup/job"


def test_the_tightest_cgroup_on_the_way_up_counts() -> None:
    """A slice that is nearly full matters though the service in it has no limit, or a higher one."""
    files = {
        "/sys/fs/cgroup/a/b/memory.max": str(4 * GB),
        "/sys/fs/cgroup/a/b/memory.current": str(GB),
        "/sys/fs/cgroup/a/memory.max": str(8 * GB),
        "/sys/fs/cgroup/a/memory.current": str(7 * GB + 512 * MB),
    }
    assert left(files, V2, "0::/a/b\n").available == 512 * MB


def test_where_the_kernel_slows_a_cgroup_down_is_a_limit_too() -> None:
    """At `memory.high` all processes of the cgroup almost stop, the grid's own included."""
    files = {
        "/sys/fs/cgroup/a/memory.max": str(4 * GB),
        "/sys/fs/cgroup/a/memory.high": str(2 * GB),
        "/sys/fs/cgroup/a/memory.current": str(GB),
    }
    assert left(files, V2, "0::/a\n").available == GB


def test_a_cgroup_of_version_1_limits_what_is_left() -> None:
    """The same by the names of version 1, also where a container's cgroup is mounted as the root."""
    files = {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GB),
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": str(GB),
        "/sys/fs/cgroup/memory/memory.stat": f"total_active_file {100 * MB}\ntotal_inactive_file {200 * MB}\n",
    }
    found = left(files, CONTAINER_V1, "4:memory:/docker/abc\n")
    assert (found.total, found.available) == (2 * GB, GB + 300 * MB)


@pytest.mark.parametrize("limit", [str((1 << 63) - 4096), str(64 * GB), "nonsense", ""])
def test_a_limit_beyond_the_machine_is_none(limit: str) -> None:
    """Neither the number that means no limit nor one above the machine's memory changes what is left."""
    files = {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": limit,
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": str(GB),
    }
    assert left(files, V1, "4:memory:/\n").of == "the machine"


def test_the_reserve_is_that_of_the_tightest_or_as_set() -> None:
    """Each limit has its usual reserve; one that is set holds for all."""
    files = {"/sys/fs/cgroup/a/memory.max": str(2 * GB), "/sys/fs/cgroup/a/memory.current": "0"}
    assert left(files, V2, "0::/a\n", reserve=None).reserve == 256 * MB
    assert left(files, V2, "0::/a\n", reserve=7).reserve == 7


def test_the_memory_of_a_node_is_the_least_limit() -> None:
    """It is used to choose among nodes; if nothing can be read, nothing is watched."""
    files = {"/sys/fs/cgroup/a/memory.max": str(2 * GB), "/sys/fs/cgroup/a/memory.current": "0"}
    known = {"/proc/meminfo": MEMINFO, "/proc/self/mountinfo": V2, "/proc/self/cgroup": "0::/a\n", **files}
    assert Gauge(known.get).total == 2 * GB
    nothing: dict[str, str] = {}
    assert Gauge(nothing.get).total == 0
    assert Gauge(nothing.get).look(None) is None


def test_this_machine_can_be_read() -> None:
    """The real files of this machine are parsed."""
    found = Gauge().look(None)
    assert found is not None
    assert 0 < found.reserve < found.total
    assert found.available >= 0
    assert kernel_kills({"/proc/vmstat": "pgfault 3\noom_kill 7\n"}.get) == 7
    assert kernel_kills() >= 0
