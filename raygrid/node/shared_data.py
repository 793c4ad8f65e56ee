"""Local copies of shared inputs (market data), by digest: each is fetched once; the least recently used are dropped.

All attempts get hard links to one copy. A pricer runs under the same user and can write into the copy, which changes it
for all. The change is detected before the copy is used again, and when each attempt ends.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from raygrid.blobs import BlobStore, data_key
from raygrid.models import BlobSlice, SharedData
from raygrid.node.attempt.safe_paths import BadOutputError, has_attributes, open_directory, open_file, remove
from raygrid.node.traffic import TrafficMeter

# Copies get an earlier modification time, so that even a write within one tick of the file system's clock is detected.
_EARLIER_NS = 2 * 10**9
_MODE = 0o444


class _State(NamedTuple):
    """Identifies an unchanged file: a program can reset the modification time, but not the time of change."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @staticmethod
    def of(status: os.stat_result) -> _State:
        return _State(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def but_changed(self) -> tuple[int, int, int, int]:
        """All but the time of change, which also changes when one of the file's names is removed."""
        return self[:4]


@dataclass(slots=True)
class _Copy:
    path: Path
    size: int
    state: _State
    is_changed: bool = False


class DataLink(NamedTuple):
    """A shared input in a job directory."""

    data: SharedData
    copy: _Copy


class SharedDataCache:
    """Copies in one directory, linked into job directories; thread-safe.

    A hard link keeps a copy for the attempts that use it, even after it was dropped from the cache. A copy that a
    pricer has changed is fetched again.
    """

    def __init__(self, directory: Path, blobs: BlobStore, limit: int, traffic: TrafficMeter | None = None) -> None:
        self._traffic = traffic or TrafficMeter()
        self._directory = directory
        self._blobs = blobs
        self._limit = limit
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._lock = threading.Lock()  # held for a few system calls at most
        self._locks: dict[str, threading.Lock] = {}  # by digest; held while a copy is fetched or read
        self.fetches = 0
        for leftover in directory.iterdir():
            leftover.unlink(missing_ok=True)

    def link(self, data: SharedData, directory: Path) -> DataLink:
        """Put a shared input into a job's data directory, until `release`.

        Raises:
            BlobNotFoundError: the blob store does not have it.
            OSError: the disk refuses it.
        """
        target = directory / data.name
        with self._lock_of(data.digest):
            copy = self._link_cached(data.digest, target) or self._fetch(data, target)
        return DataLink(data, copy)

    def release(self, links: Sequence[DataLink], directory: int) -> bool:
        """Remove an attempt's shared inputs from `data` in its job directory; return whether they are unchanged."""
        unchanged = True
        dir_fd = -1
        with contextlib.suppress(OSError):  # the pricer may have moved it away
            dir_fd = open_directory("data", directory)
        try:
            for link in links:
                with self._lock_of(link.data.digest):
                    unchanged &= self._release(link, dir_fd)
        finally:
            if dir_fd >= 0:
                os.close(dir_fd)
        return unchanged

    def _release(self, link: DataLink, dir_fd: int) -> bool:
        copy = link.copy
        if (file := self._opened(copy, link.data.name, dir_fd)) is None:
            return False  # no name of it is left, so that a change cannot be excluded
        try:
            if not self._is_good(copy, file, link.data.digest):
                self._drop(copy, link.data.digest)
                return False
            if not _is_as_made(file):
                self._forget(copy, link.data.digest)
            with self._lock:
                self._change_names(copy, file, lambda: _unlink(link.data.name, dir_fd, copy))
        finally:
            os.close(file)
        return True

    @staticmethod
    def _opened(copy: _Copy, name: str, dir_fd: int) -> int | None:
        """The copy, opened by its name in the job directory, or else by its path in the cache."""
        for place, inside in ((name, dir_fd), (str(copy.path), None)):
            if inside == -1:
                continue
            with contextlib.suppress(OSError, BadOutputError):
                file = open_file(place, inside)
                if _State.of(os.fstat(file))[:2] == copy.state[:2]:
                    return file
                os.close(file)
        return None

    def _link_cached(self, digest: str, target: Path) -> _Copy | None:
        with self._lock:
            copy = self._copies.get(digest)
        if copy is None:
            return None
        if (file := self._opened(copy, "", -1)) is None:
            self._drop(copy, digest)
            return None
        try:
            if self._is_good(copy, file, digest):
                if not _is_as_made(file):
                    self._forget(copy, digest)
                    return None
                # The lock keeps other threads from dropping the copy before it is linked.
                with self._lock, contextlib.suppress(FileNotFoundError):
                    self._change_names(copy, file, lambda: os.link(copy.path, target, follow_symlinks=False))
                    if digest in self._copies:
                        self._copies.move_to_end(digest)
                    return copy
        finally:
            os.close(file)
        self._drop(copy, digest)
        return None

    def _is_good(self, copy: _Copy, file: int, digest: str) -> bool:
        """Whether a copy is unchanged; its digest is computed if only its time of change differs."""
        if copy.is_changed:
            return False
        with self._lock:
            now = _State.of(os.fstat(file))
            if now == copy.state:
                return True
        if now.but_changed != copy.state.but_changed:
            return False
        with os.fdopen(os.dup(file), "rb") as content:
            content.seek(0)
            if hashlib.file_digest(content, "sha256").hexdigest() != digest:
                return False
        with self._lock:
            if now != _State.of(os.fstat(file)):
                return False  # it is being written
            copy.state = now
        return True

    @staticmethod
    def _change_names(copy: _Copy, file: int, work: Callable[[], object]) -> None:
        """Add or remove a name of a copy, and note its new state unless a pricer has changed it."""
        before = _State.of(os.fstat(file))
        work()
        if before == copy.state:
            copy.state = _State.of(os.fstat(file))

    def _drop(self, copy: _Copy, digest: str) -> None:
        """Drop a changed copy; attempts that use it detect the change when they end."""
        with self._lock:
            copy.is_changed = True
        self._forget(copy, digest)

    def _forget(self, copy: _Copy, digest: str) -> None:
        """Drop a copy whose content is right; attempts that use it may go on."""
        with self._lock:
            if self._copies.get(digest) is copy:
                del self._copies[digest]
                remove(str(copy.path))

    def _fetch(self, data: SharedData, target: Path) -> _Copy:
        path = self._directory / data.digest
        remove(str(path))
        self._blobs.fetch_now(BlobSlice(data_key(data.digest), 0, data.size, data.digest), path)
        self._traffic.add(data=data.size)
        path.chmod(_MODE)
        fetched_ns = path.stat().st_mtime_ns
        os.utime(path, ns=(fetched_ns, fetched_ns - _EARLIER_NS))
        with self._lock:
            os.link(path, target)
            copy = _Copy(path, data.size, _State.of(os.lstat(path)))
            self.fetches += 1
            self._copies[data.digest] = copy
            self._make_room()
        return copy

    def _make_room(self) -> None:
        """Drop the least recently used copies; called with the lock held. Attempts that use one keep it."""
        total = sum(each.size for each in self._copies.values())
        while total > self._limit and len(self._copies) > 1:
            _, oldest = self._copies.popitem(last=False)
            total -= oldest.size
            if (file := self._opened(oldest, "", -1)) is None:
                remove(str(oldest.path))
                continue
            try:
                self._change_names(oldest, file, partial(oldest.path.unlink, missing_ok=True))
            finally:
                os.close(file)

    def _lock_of(self, digest: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(digest, threading.Lock())


def _unlink(name: str, dir_fd: int, copy: _Copy) -> None:
    """Remove a copy's name from a job directory if the name still belongs to the copy."""
    with contextlib.suppress(OSError):
        if dir_fd >= 0 and _State.of(os.stat(name, dir_fd=dir_fd, follow_symlinks=False))[:2] == copy.state[:2]:
            os.unlink(name, dir_fd=dir_fd)


def _is_as_made(file: int) -> bool:
    """Whether a copy has the permissions that it got; a pricer that owns it can change them, and add attributes."""
    return stat.S_IMODE(os.fstat(file).st_mode) == _MODE and not has_attributes(file)
