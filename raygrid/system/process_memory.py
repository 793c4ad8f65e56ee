"""Reads what memory a process uses beyond its resident size, and which files of a process are in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

from raygrid.system.proc import (
    Reader,
    directories_of,
    file_systems,
    machine_memory,
    numbers,
    open_file_statuses,
    read_text,
)

_BLOCK = 512  # the unit of st_blocks
_KB = 1024


class MemoryParts(NamedTuple):
    """Memory of a process, bytes.

    Attributes:
        own: all but the other part, including what is swapped out.
        shared: pages of files in memory and of other shared mappings, as far as this process has mapped them.
    """

    own: int
    shared: int


def resident_parts(pid: int, resident: int) -> MemoryParts:
    """The parts of a process's resident size; pages that several processes map count in each of them."""
    found = _first_with("RssShmem:", pid, "status")
    shared = found.get("RssShmem:", 0) * _KB
    return MemoryParts(max(0, resident - shared) + found.get("VmSwap:", 0) * _KB, shared)


def proportional_parts(pid: int) -> MemoryParts | None:
    """The same, but of a page that several processes map each counts its share. Takes 50 ms for each GB.

    None if it cannot be read: the process has ended or may not be inspected, or the kernel is older than 5.4.
    """
    found = _first_with("Pss:", pid, "smaps_rollup")
    if "Pss:" not in found or "Pss_Shmem:" not in found:
        return None
    shared = found["Pss_Shmem:"] * _KB
    return MemoryParts(found["Pss:"] * _KB - shared + found.get("SwapPss:", 0) * _KB, shared)


def has_memory(pid: int) -> bool:
    """Whether a process still has memory of its own; it has none once it has ended."""
    return bool(_first_with("VmRSS:", pid, "status"))


def _first_with(name: str, pid: int, file: str) -> dict[str, int]:
    """The numbers in a file of a process, or of a later thread if its first has ended; empty without that name."""
    for directory in directories_of(pid):
        found = numbers(read_text(f"{directory}/{file}"))
        if name in found:
            return found
    return {}


def shared_memory_of_machine() -> int:
    """The memory of all files in memory and other shared mappings of the machine, bytes; 0 if it cannot be read."""
    return machine_memory(read_text).get("Shmem:", 0)


@lru_cache(maxsize=1)
def memfd_device() -> int:
    """The device of files that `memfd_create` makes, by which they are recognised; 0 if the kernel makes none."""
    try:
        file = os.memfd_create("raygrid", os.MFD_CLOEXEC)
    except OSError:
        return 0
    try:
        return os.fstat(file).st_dev
    finally:
        os.close(file)


def tmpfs_devices(read: Reader = read_text) -> frozenset[int]:
    """The devices of the mounted file systems whose files are in memory, such as `/dev/shm`."""
    numbers_of = (mount.device.partition(":")[::2] for mount in file_systems(read) if mount.kind == "tmpfs")
    return frozenset(os.makedev(int(major), int(minor)) for major, minor in numbers_of)


def tmpfs_devices_beside(directory: str) -> frozenset[int]:
    """The same, without that of a directory."""
    try:
        return tmpfs_devices() - {os.stat(directory).st_dev}
    except OSError:
        return tmpfs_devices()


def open_files_in_memory(pids: Iterable[int], tmpfs: Collection[int], since_ns: int) -> int:
    """Bytes of memory of the files that these processes have open: memory files, and files on a tmpfs.

    Each counts once. A file on a tmpfs counts if it was changed since that moment, in nanoseconds since the epoch:
    others may be data that another program provides. Files of a process that may not be inspected do not count.
    """
    total, seen, memfd = 0, set[tuple[int, int]](), memfd_device()
    for pid in pids:
        for status in open_file_statuses(pid):
            if not (status.st_dev == memfd or (status.st_dev in tmpfs and status.st_ctime_ns >= since_ns)):
                continue
            identity = status.st_dev, status.st_ino
            if identity not in seen and stat.S_ISREG(status.st_mode):
                seen.add(identity)
                total += status.st_blocks * _BLOCK
    return total
