"""The cache of a node's recent results, by jobId, bounded in bytes; the least recently used are dropped.

Results are kept in the packs in which they were stored, so that a thousand small ones cost one call. A `PackStore`
keeps the packs: the Ray object store in the grid, this process in tests.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

logger = logging.getLogger(__name__)


class PackStore(Protocol):
    """Keeps bytes under a handle until the handle is dropped."""

    def put(self, data: bytes) -> object:
        """Keep bytes while the returned handle exists."""
        ...

    def get(self, handle: object) -> memoryview | bytes | None:
        """The bytes; None if they were dropped, as may happen in a cache."""
        ...


class LocalPackStore:
    """Keeps bytes in this process."""

    def put(self, data: bytes) -> object:
        """Keep bytes."""
        return data

    def get(self, handle: object) -> bytes | None:
        """The bytes."""
        return handle if isinstance(handle, bytes) else None


@dataclass(slots=True)
class _Pack:
    handle: object
    size: int
    job_ids: tuple[str, ...]


class ResultCache:
    """The latest results of this node."""

    def __init__(self, pack_store: PackStore, limit: int) -> None:
        self._pack_store = pack_store
        self._limit = limit
        self._packs: OrderedDict[str, _Pack] = OrderedDict()
        self._positions: dict[str, tuple[str, int, int]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def add(self, key: str, data: bytes, parts: Sequence[tuple[str, int, int]]) -> None:
        """Keep a pack: its blob key, its bytes, and for each job its id, offset and size."""
        if len(data) > self._limit:
            return
        try:
            handle = self._pack_store.put(data)
        except Exception:  # such as a full store; Ray's errors have no common base with others
            what = "a pack of %d results cannot be cached; parents read them from the blob store"
            logger.warning(what, len(parts), exc_info=True)
            return
        with self._lock:
            self._packs[key] = _Pack(handle, len(data), tuple(job_id for job_id, _, _ in parts))
            self._size += len(data)
            for job_id, offset, size in parts:
                self._positions[job_id] = (key, offset, size)
            while self._size > self._limit:
                oldest_key, oldest = self._packs.popitem(last=False)
                self._size -= oldest.size
                for job_id in oldest.job_ids:
                    if self._positions.get(job_id, ("",))[0] == oldest_key:
                        del self._positions[job_id]

    def get(self, key: str, job_ids: Sequence[str]) -> list[bytes | None]:
        """Results of jobs in the pack `key`; None for each that is not cached."""
        with self._lock:
            pack = self._packs.get(key)
            if pack is None:
                return [None] * len(job_ids)
            self._packs.move_to_end(key)
            positions = [self._positions.get(job_id) for job_id in job_ids]
        data = self._pack_store.get(pack.handle)
        if data is None:
            return [None] * len(job_ids)
        found = [place if place is not None and place[0] == key else None for place in positions]
        return [None if place is None else bytes(data[place[1] : place[1] + place[2]]) for place in found]
