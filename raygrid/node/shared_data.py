"""Local copies of shared inputs (market data), by digest: fetched once, bounded in bytes, least recently used out."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from raygrid.blobs import BlobStore, data_key
from raygrid.models import BlobSlice, SharedData
from raygrid.node.traffic import TrafficMeter
from raygrid.node.workspace import mark


@dataclass(slots=True)
class _Copy:
    path: Path
    size: int
    mark: tuple[int, int]


class SharedDataCache:
    """Copies under one directory, linked into job directories.

    A hard link keeps a copy alive for the attempts that use it, even after it left the cache. A copy that a pricer has
    changed in place is noticed by its size and time, and fetched anew.
    """

    def __init__(self, directory: Path, blobs: BlobStore, limit: int, traffic: TrafficMeter | None = None) -> None:
        self._traffic = traffic or TrafficMeter()
        self._directory = directory
        self._blobs = blobs
        self._limit = limit
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}
        self.fetches = 0
        for leftover in directory.iterdir():
            leftover.unlink(missing_ok=True)

    def link(self, data: SharedData, directory: Path) -> None:
        """Put a shared input into a job's data directory.

        Raises:
            BlobNotFoundError: the blob store does not have it.
            OSError: the disk does not take it.
        """
        with self._lock:
            one_fetch = self._fetching.setdefault(data.digest, threading.Lock())
        with one_fetch:
            if not self._link_known_good(data.digest, directory / data.name):
                self._fetch(data, directory / data.name)

    def _link_known_good(self, digest: str, target: Path) -> bool:
        with self._lock:  # copies are dropped under it, too: one that is there stays there until it is linked
            copy = self._copies.get(digest)
            if copy is None:
                return False
            if not copy.path.exists() or mark(copy.path) != copy.mark:
                del self._copies[digest]
                copy.path.unlink(missing_ok=True)
                return False
            self._copies.move_to_end(digest)
            os.link(copy.path, target)
            return True

    def _fetch(self, data: SharedData, target: Path) -> None:
        path = self._directory / data.digest
        path.unlink(missing_ok=True)
        self._blobs.fetch_now(BlobSlice(data_key(data.digest), 0, data.size, data.digest), path)
        self._traffic.add(data=data.size)
        path.chmod(0o444)
        copy = _Copy(path, data.size, mark(path))
        with self._lock:
            os.link(path, target)
            self.fetches += 1
            self._copies[data.digest] = copy
            total = sum(each.size for each in self._copies.values())
            while total > self._limit and len(self._copies) > 1:
                _, oldest = self._copies.popitem(last=False)
                oldest.path.unlink(missing_ok=True)
                total -= oldest.size
