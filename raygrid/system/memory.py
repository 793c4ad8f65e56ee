"""How much memory is left: of the machine, and of each cgroup around this process that has a limit.

Pages of files that can be dropped at once count as free, as the kernel's own estimate for the machine (`MemAvailable`)
has it; so does free swap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from raygrid.system.cgroups import Reader, mounts, read_text

_NO_LIMIT = 1 << 60  # version 1 writes a number near 2^63 where there is none
_LEAST_RESERVE = 256 * 1024**2
_MOST_RESERVE = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of the machine or of a cgroup, bytes.

    Attributes:
        total: all of it.
        available: what processes can still get.
        reserve: what is to be left at least.
        of: whose it is, for a sentence.
    """

    total: int
    available: int
    reserve: int
    of: str

    @property
    def headroom(self) -> int:
        """What may still be used; negative under pressure."""
        return self.available - self.reserve


def usual_reserve(total: int) -> int:
    """What is to be left of so much memory unless the settings name a value.

    A twentieth, but at least 256 MB, so that a pricer that grows by gigabytes a second is seen in time, and at most
    4 GB. Of little memory an eighth has to do.
    """
    return min(max(total // 20, min(_LEAST_RESERVE, total // 8)), _MOST_RESERVE)


class Gauge:
    """Reads the memory that is left where it is scarcest.

    Args:
        read: reads a file by its absolute path; tests put fakes here.
    """

    def __init__(self, read: Reader = read_text) -> None:
        self._read = read
        self._mounts = list(mounts("memory", read))

    @property
    def total(self) -> int:
        """The least of all limits: what pricers can use at most; 0 if nothing can be read."""
        return min((each.total for each in self._all(None)), default=0)

    def look(self, reserve: int | None) -> Memory | None:
        """The memory with the least headroom; None where nothing can be read.

        Args:
            reserve: bytes to be left; None for the usual part of each.
        """
        return min(self._all(reserve), key=lambda each: each.headroom, default=None)

    def _all(self, reserve: int | None) -> Iterator[Memory]:
        machine = _fields(self._read("/proc/meminfo"), unit=1024)
        total, available = machine.get("MemTotal:", 0), machine.get("MemAvailable:", 0)
        swap = machine.get("SwapFree:", 0)
        if not total or "MemAvailable:" not in machine:
            return
        yield Memory(total, available + swap, usual_reserve(total) if reserve is None else reserve, "the machine")
        for mount in self._mounts:
            for place in mount.places:
                found = self._unified(str(place), swap) if mount.unified else self._version_1(str(place), swap)
                if found is not None and found[0] < total:
                    limit, left = found
                    kept = usual_reserve(limit) if reserve is None else reserve
                    yield Memory(limit, max(0, left), kept, f"cgroup {place}")

    def _unified(self, place: str, swap: int) -> tuple[int, int] | None:
        """Limit and room of a cgroup of version 2. At `memory.high` the kernel slows all its processes to a crawl."""
        limits = [limit for name in ("max", "high") if (limit := self._number(f"{place}/memory.{name}")) is not None]
        used = self._number(f"{place}/memory.current")
        if not limits or used is None:
            return None
        stat = _fields(self._read(f"{place}/memory.stat"))
        files = stat.get("active_file", 0) + stat.get("inactive_file", 0)
        unwritten = stat.get("file_dirty", 0) + stat.get("file_writeback", 0)
        reclaimable = max(0, files - unwritten) + stat.get("slab_reclaimable", 0)
        swap_limit = self._number(f"{place}/memory.swap.max")
        if swap_limit is not None:
            swap = min(swap, max(0, swap_limit - (self._number(f"{place}/memory.swap.current") or 0)))
        return min(limits), min(limits) - used + reclaimable + swap

    def _version_1(self, place: str, swap: int) -> tuple[int, int] | None:
        limit, used = (self._number(f"{place}/memory.{name}_in_bytes") for name in ("limit", "usage"))
        if limit is None or used is None or limit >= _NO_LIMIT:
            return None
        stat = _fields(self._read(f"{place}/memory.stat"))
        files = stat.get("total_active_file", 0) + stat.get("total_inactive_file", 0)
        unwritten = stat.get("total_dirty", 0) + stat.get("total_writeback", 0)
        both, used_of_both = (self._number(f"{place}/memory.memsw.{name}_in_bytes") for name in ("limit", "usage"))
        if both is not None and used_of_both is not None and both < _NO_LIMIT:
            swap = min(swap, max(0, (both - used_of_both) - (limit - used)))
        return limit, limit - used + max(0, files - unwritten) + swap

    def _number(self, path: str) -> int | None:
        text = (self._read(path) or "").strip()
        return int(text) if text.isdigit() else None


def kernel_kills(read: Reader = read_text) -> int:
    """How many processes the kernel has killed for want of memory since the machine started."""
    return _fields(read("/proc/vmstat")).get("oom_kill", 0)


def _fields(text: str | None, unit: int = 1) -> dict[str, int]:
    """Lines of a name and a number."""
    found: dict[str, int] = {}
    for line in (text or "").splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0]] = int(words[1]) * unit
    return found
