"""Finds the processes of a grid's tiers on this machine, and measures their memory and CPU time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raygrid.system.proc import cpu_and_memory, title_of
from raygrid.system.relatives import descendants

_TITLES = {
    "ray::ServeReplica:": "parent",
    "ray::ProxyActor": "proxy",
    "haproxy": "proxy",
    "ray::LeaderActor": "leader",
    "ray::NodeAgentActor": "agent",
    "raylet": "raylet",
}
_QUIET = 0.25  # of a core; an idle grid needs less
_RESET_PEAK = "5"  # of /proc/PID/clear_refs, see proc(5)


def processes(supervisor: int) -> dict[str, list[int]]:
    """Pids by tier, of all descendants of a grid's supervisor."""
    found: dict[str, list[int]] = {}
    for pid in descendants(supervisor):
        if (tier := _tier(pid)) is not None:
            found.setdefault(tier, []).append(pid)
    return found


def settle(ancestor: int, most_s: float = 30.0) -> None:
    """Wait until a process and its descendants use little CPU time after their start, at most `most_s`."""
    until = time.monotonic() + most_s
    while time.monotonic() < until:
        before = {pid: _cpu_s(pid) for pid in (ancestor, *descendants(ancestor))}
        time.sleep(1.0)
        if sum(max(0.0, _cpu_s(pid) - before.get(pid, 0.0)) for pid in (ancestor, *descendants(ancestor))) < _QUIET:
            return


def _cpu_s(pid: int) -> float:
    try:
        used = cpu_and_memory(pid)
    except OSError:
        return 0.0
    return used.user_s + used.system_s


def _tier(pid: int) -> str | None:
    title = title_of(pid)
    program = title.split(" ")[0].rpartition("/")[2]
    return next((tier for begin, tier in _TITLES.items() if title.startswith(begin) or program == begin), None)


def _peak_bytes(pid: int) -> int:
    """Peak resident memory; 0 for a process that has ended."""
    try:
        return cpu_and_memory(pid).peak_rss_bytes
    except OSError:
        return 0


@contextmanager
def growth(supervisor: int) -> Iterator[dict[str, int]]:
    """The largest growth of each tier's memory within the block, bytes; filled in at its end.

    It is peak resident memory, including pages of Ray's shared object store, above the memory at the beginning.
    """
    pids = processes(supervisor)
    before = {}
    for pid in (pid for tier in pids.values() for pid in tier):
        with suppress(OSError):  # it has ended
            rss_bytes = cpu_and_memory(pid).rss_bytes
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
            before[pid] = rss_bytes
    found: dict[str, int] = {}
    yield found
    for tier, those in pids.items():
        found[tier] = max((_peak_bytes(pid) - before[pid] for pid in those if pid in before), default=0)


def peak(supervisor: int) -> dict[str, int]:
    """Peak resident memory of each tier's largest process since its start, bytes."""
    return {tier: max(map(_peak_bytes, pids)) for tier, pids in processes(supervisor).items()}
