"""The default number of slots: the affinity mask and the quotas of cgroups, in the forms that containers have."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from raygrid.system.processors import usable_processors, within_quota

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


def slots(affinity: int, mounts: str, own: str, files: Mapping[str, str]) -> int:
    """The answer on a machine with these files."""
    known = {"/proc/self/mountinfo": mounts, "/proc/self/cgroup": own, **files}
    return within_quota(affinity, known.get)


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1000 100000", 1),
        ("1600000 100000", 8),
        ("30000 10000", 3),
        ("", 8),
        ("nonsense", 8),
        ("0 100000", 8),
        ("100000 0", 8),
    ],
)
def test_a_quota_of_version_2_limits_the_slots(quota: str, expected: int) -> None:
    """Whole processors of the quota count, at least one; `max` and what cannot be read limit nothing."""
    files = {"/sys/fs/cgroup/batch/job/cpu.max": quota + "\n"}
    assert slots(8, V2, "0::/batch/job\n", files) == expected


@pytest.mark.parametrize("place", ["/sys/fs/cgroup", "/sys/fs/cgroup/a", "/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a/b/c"])
def test_the_smallest_quota_on_the_whole_path_holds(place: str) -> None:
    """A service's slice may be limited where the service itself is not."""
    levels = ("", "/a", "/a/b", "/a/b/c")
    files = {f"/sys/fs/cgroup{level}/cpu.max": "600000 100000\n" for level in levels}
    assert slots(8, V2, "0::/a/b/c\n", {**files, f"{place}/cpu.max": "300000 100000\n"}) == 3


def test_a_quota_elsewhere_limits_nothing() -> None:
    """Neither another cgroup's quota counts, nor a file above the mount point."""
    files = {"/sys/fs/cgroup/b/cpu.max": "100000 100000\n", "/sys/fs/cpu.max": "100000 100000\n"}
    assert slots(8, V2, "0::/a\n", files) == 8


@pytest.mark.parametrize(("quota", "expected"), [("-1", 8), ("300000", 3), ("250000", 2), ("10000", 1)])
def test_a_quota_of_version_1_limits_the_slots(quota: str, expected: int) -> None:
    """The older kind of cgroups has a hierarchy for each controller; -1 is no limit."""
    directory = "/sys/fs/cgroup/cpu,cpuacct/docker/1"
    files = {f"{directory}/cpu.cfs_quota_us": f"{quota}\n", f"{directory}/cpu.cfs_period_us": "100000\n"}
    own = "4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n0::/\n"
    assert slots(8, V1, own, files) == expected


def test_a_container_sees_its_own_cgroup_as_the_root_of_the_mount() -> None:
    """Without a cgroup namespace the path is the host's and the mount begins at the container's cgroup."""
    mounts = "32 23 0:28 /docker/1 /sys/fs/cgroup/cpu ro - cgroup cgroup rw,cpu\n"
    quota = {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}
    assert slots(8, mounts, "3:cpu:/docker/1\n", quota) == 2
    assert slots(8, mounts, "3:cpu:/elsewhere\n", quota) == 2
    below = {path.replace("/cpu/cpu.", "/cpu/mine/cpu."): text for path, text in quota.items()}
    assert slots(8, mounts, "3:cpu:/docker/1/mine\n", below) == 2


def test_both_versions_at_once_and_a_path_with_a_blank() -> None:
    """On a machine with both kinds of cgroups the smaller quota holds."""
    mounts = V1 + "33 23 0:29 / /sys/fs/cgroup/my\\040groups rw - cgroup2 cgroup2 rw\n"
    files = {
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
        "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "/sys/fs/cgroup/my groups/a/cpu.max": "300000 100000",
    }
    assert slots(8, mounts, "3:cpu,cpuacct:/\n0::/a\n", files) == 3


@pytest.mark.parametrize(("mounts", "own"), [("", ""), ("\n", "0::/a"), (V2, ""), ("x - cgroup2", "::\n:")])
def test_where_nothing_can_be_read_the_mask_decides(mounts: str, own: str) -> None:
    """Without /proc, or with text in it that is not understood, there are as many slots as processors; never none."""
    assert slots(8, mounts, own, {}) == 8
    assert slots(0, mounts, own, {}) == 1


def test_a_process_on_one_processor_has_one_slot(tmp_path: Path) -> None:
    """Below `taskset -c N` an agent without a setting offers one slot, and so does everything else that counts."""
    cpu = str(min(os.sched_getaffinity(0)))
    script = (
        "import asyncio, pathlib\n"
        "from raygrid.system.processors import usable_processors\n"
        "from tests.support.lone_agent import lone_agent\n"
        f"agent = lone_agent(pathlib.Path({str(tmp_path)!r}), slots=None)\n"
        "agent.open()\n"
        "load = asyncio.run(agent.reports(1, 0, 0, 0)).state\n"
        "print(usable_processors(), load.slots)\n"
        "agent.close()\n"
    )
    done = subprocess.run(
        ["taskset", "-c", cpu, sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.split() == ["1", "1"], done.stderr
    assert usable_processors() >= 1
