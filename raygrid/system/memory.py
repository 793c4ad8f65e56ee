"""Reads how much memory is left on the machine, and in each limited cgroup around this process.

Reclaimable file pages count as free, as in the kernel's estimate for the machine (`MemAvailable`); so does free swap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from raygrid.system.cgroups import hierarchies
from raygrid.system.proc import Reader, machine_memory, numbers, read_text

_NO_LIMIT = 1 << 60  # without a limit, version 1 gives a number near 2^63
_LEAST_RESERVE = 256 * 1024**2
_MOST_RESERVE = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of the machine or of a cgroup, bytes.

    Attributes:
        total: the machine's memory or the cgroup's limit.
        available: what processes can still allocate.
        reserve: what must stay available.
        of: `the machine` or `cgroup PATH`, for messages.
    """

    total: int
    available: int
    reserve: int
    of: str

    @property
    def headroom(self) -> int:
        """What may still be used; negative if the reserve is in use."""
        return self.available - self.reserve


def usual_reserve(total: int) -> int:
    """The reserve of a memory of this size, unless the settings give one.

    A twentieth of the memory, at least 256 MB (a pricer can grow by gigabytes a second) but not more than an eighth of
    it, and at most 4 GB.
    """
    return min(max(total // 20, min(_LEAST_RESERVE, total // 8)), _MOST_RESERVE)


class Gauge:
    """Reads the available memory of the machine and of the cgroups around this process."""

    def __init__(self, read: Reader = read_text) -> None:
        self._read = read
        self._hierarchies = list(hierarchies("memory", read))

    @property
    def total(self) -> int:
        """The smallest limit, which is the most that pricers can use; 0 if nothing can be read."""
        return min((each.total for each in self._all(None)), default=0)

    def look(self, reserve: int | None) -> Memory | None:
        """The memory with the least headroom; None if nothing can be read. Without a reserve, the usual one holds."""
        return min(self._all(reserve), key=lambda each: each.headroom, default=None)

    def _all(self, reserve: int | None) -> Iterator[Memory]:
        machine = machine_memory(self._read)
        total, available = machine.get("MemTotal:", 0), machine.get("MemAvailable:", 0)
        swap = machine.get("SwapFree:", 0)
        if not total or "MemAvailable:" not in machine:
            return
        yield Memory(total, available + swap, usual_reserve(total) if reserve is None else reserve, "the machine")
        for each in self._hierarchies:
            for place in each.directories:
                found = self._version_2(str(place), swap) if each.unified else self._version_1(str(place), swap)
                if found is not None and found[0] < total:
                    limit, left = found
                    kept = usual_reserve(limit) if reserve is None else reserve
                    yield Memory(limit, max(0, left), kept, f"cgroup {place}")

    def _version_2(self, place: str, swap: int) -> tuple[int, int] | None:
        """Limit and available memory of a cgroup. Above `memory.high` the kernel slows all its processes heavily."""
        limits = [limit for name in ("max", "high") if (limit := self._number(f"{place}/memory.{name}")) is not None]
        used = self._number(f"{place}/memory.current")
        if not limits or used is None:
            return None
        stat = numbers(self._read(f"{place}/memory.stat"))
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
        stat = numbers(self._read(f"{place}/memory.stat"))
        files = stat.get("total_active_file", 0) + stat.get("total_inactive_file", 0)
        unwritten = stat.get("total_dirty", 0) + stat.get("total_writeback", 0)
        both, used_of_both = (self._number(f"{place}/memory.memsw.{name}_in_bytes") for name in ("limit", "usage"))
        if both is not None and used_of_both is not None and both < _NO_LIMIT:
            swap = min(swap, max(0, (both - used_of_both) - (limit - used)))
        return limit, limit - used + max(0, files - unwritten) + swap

    def _number(self, path: str) -> int | None:
        text = (self._read(path) or "").strip()
        return int(text) if text.isdigit() else None
