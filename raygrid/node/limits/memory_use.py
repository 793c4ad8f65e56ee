"""Measures the memory of one attempt: resident pages of all its processes, files in memory, and System V segments.

The resident size of each process is known from the table of processes. The rest takes longer to read: it is measured
once a second, and more often if the attempt may be near its limit. Pages that several processes share count once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from raygrid.node.limits.running import Running
from raygrid.system.proc import Process
from raygrid.system.process_memory import (
    MemoryParts,
    has_memory,
    open_files_in_memory,
    proportional_parts,
    resident_parts,
    tmpfs_devices_beside,
)

LOOK_S = 1.0
EXACT_TRIES = 3
"""How often processes are measured if some end meanwhile: those measured later then share with fewer others, so that
the sum may exceed what they ever used together."""
REST = 10  # measuring takes at most 1/REST of the time, unless the resident size alone shows that the limit is exceeded


class MemoryUse:
    """The memory that one attempt uses, and when to measure it again."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self._next = self._not_before = 0.0
        self._extra = 0  # beyond the resident size, at the last measurement
        self._machine = 0  # shared memory of the machine at that time
        self._tmpfs: frozenset[int] | None = None

    def exceeds(self, limit: int, own: Sequence[Process], machine: int, now: float) -> int | None:
        """The bytes that it uses if they exceed the limit; None if they do not.

        Args:
            limit: the limit, bytes.
            own: its processes, from a current table.
            machine: the shared memory of the machine now (`shared_memory_of_machine`).
            now: the monotonic clock.
        """
        resident = sum(process.rss_bytes for process in own)
        if any(process.rss_bytes > limit for process in own):
            return resident
        room = max(0, limit - resident - max(0, self._extra))
        is_near = resident + self._extra > limit // 2 or machine - self._machine > room // 2
        if now < self._not_before or not (is_near or now >= self._next):
            return None
        used = self._measure(limit, own)
        self._extra, self._machine = used - resident, machine
        took_s = time.monotonic() - now
        self._next, self._not_before = now + LOOK_S, now + took_s * (REST + 1)
        return used if used > limit else None

    def _measure(self, limit: int, own: Sequence[Process]) -> int:
        living = [process for process in own if not process.is_zombie]
        kernel = memory_of_kernel(self.running)
        return memory_of(living, self._files(living), limit - kernel) + kernel

    def _files(self, own: Sequence[Process]) -> int:
        """Bytes of files in memory: open ones, all in a private /dev/shm, and System V segments."""
        if self._tmpfs is None:
            self._tmpfs = tmpfs_devices_beside(self.running.directory)  # files in its directories are its output
        since_ns = time.time_ns() - int((time.monotonic() - self.running.started) * 1e9)
        files = open_files_in_memory((process.pid for process in own), self._tmpfs, since_ns)
        return files + unmapped_memory(self.running)


def memory_of(own: Sequence[Process], files: int, limit: int) -> int:
    """The bytes that running processes use together with their files in memory, whose mapped pages are resident, too.

    Pages that several of them share count once if that decides whether they exceed the limit.
    """
    parts = [resident_parts(process.pid, process.rss_bytes) for process in own]
    used = sum(each.own for each in parts) + max(files, sum(each.shared for each in parts))
    if used <= limit or len(own) == 1:
        return used
    for _ in range(EXACT_TRIES):
        exact = [_exact_parts(process.pid, part) for process, part in zip(own, parts, strict=True)]
        used = sum(each.own for each in exact) + max(files, sum(each.shared for each in exact))
        if used <= limit or all(has_memory(process.pid) for process in own):
            break
    return used


def _exact_parts(pid: int, resident: MemoryParts) -> MemoryParts:
    """What a process uses of the pages that it shares; all of its resident size if that cannot be read."""
    exact = proportional_parts(pid)
    if exact is not None:
        return exact
    return resident if has_memory(pid) else MemoryParts(0, 0)


def unmapped_memory(running: Running) -> int:
    """The bytes that an attempt uses even if no process has them open or mapped: /dev/shm and System V segments."""
    return private_shared_memory(running) + (running.segments.used() if running.segments is not None else 0)


def memory_of_kernel(running: Running) -> int:
    """The bytes of the kernel's own memory that an attempt has taken, as far as they are known."""
    return running.segments.used_by_kernel() if running.segments is not None else 0


def private_shared_memory(running: Running) -> int:
    """The bytes in the private /dev/shm of an attempt; 0 if it has none."""
    if running.shared_memory < 0:
        return 0
    try:
        status = os.fstatvfs(running.shared_memory)
    except OSError:  # the attempt has just ended
        return 0
    return (status.f_blocks - status.f_bfree) * status.f_frsize
