"""The processes of a grid's tiers on this machine: which they are, how much memory and CPU they use."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TITLES = {
    "ray::ServeReplica:": "parent",
    "ray::ProxyActor": "proxy",
    "haproxy": "proxy",
    "ray::LeaderActor": "leader",
    "ray::NodeAgentActor": "agent",
    "raylet": "raylet",
}
_TICKS = os.sysconf("SC_CLK_TCK")
_QUIET = 0.25  # of a core; what an idle grid needs is below it
_RESET_PEAK = "5"  # of /proc/PID/clear_refs, see proc(5)


def descendants(ancestor: int) -> list[int]:
    """A process and all that are below it."""
    children: dict[int, list[int]] = {}
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and (fields := _stat(int(directory.name))):
            children.setdefault(int(fields[1]), []).append(int(directory.name))
    found = [ancestor]
    for pid in found:
        found += children.get(pid, [])
    return found


def processes(supervisor: int) -> dict[str, list[int]]:
    """Pids by tier, of all that the supervisor of a grid has below it."""
    found: dict[str, list[int]] = {}
    for pid in descendants(supervisor):
        if (tier := _tier(pid)) is not None:
            found.setdefault(tier, []).append(pid)
    return found


def settle(ancestor: int, most_s: float = 30.0) -> None:
    """Wait until a process and all below it have come to rest after starting, or until that takes too long."""
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        before = {pid: _cpu_s(pid) for pid in descendants(ancestor)}
        time.sleep(1.0)
        used_s = sum(_cpu_s(pid) - before.get(pid, 0.0) for pid in descendants(ancestor))
        if used_s < _QUIET:
            return


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat behind the name; none for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def _tier(pid: int) -> str | None:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return None
    program = title.split(" ")[0].rpartition("/")[2]
    return next((tier for begin, tier in _TITLES.items() if title.startswith(begin) or program == begin), None)


def memory(pid: int, field: str) -> int:
    """A line of /proc/PID/status such as VmRSS or VmHWM, bytes; 0 for a process that has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


@contextmanager
def growth(supervisor: int) -> Iterator[dict[str, int]]:
    """By how many bytes each tier's memory grew at most within the block; filled in at its end.

    Peak resident memory, pages of Ray's shared object store included, over what the process had at the beginning.
    """
    pids = processes(supervisor)
    before = {}
    for pid in (pid for tier in pids.values() for pid in tier):
        before[pid] = memory(pid, "VmRSS")
        try:
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
        except OSError:
            before.pop(pid)  # it has ended
    found: dict[str, int] = {}
    yield found
    for tier, those in pids.items():
        found[tier] = max((memory(pid, "VmHWM") - before[pid] for pid in those if pid in before), default=0)


def peak(supervisor: int) -> dict[str, int]:
    """Peak resident memory of each tier's largest process since it began, bytes."""
    return {tier: max(memory(pid, "VmHWM") for pid in pids) for tier, pids in processes(supervisor).items()}
