"""Whether a node can do its work: room on its disk, and a blob store that takes results.

Looked at once a second in a thread of its own: a disk or a network file system that hangs must not hold up the
watchdog's limits.
"""

from __future__ import annotations

import threading

from raygrid.blobs import BlobStore
from raygrid.node.publisher import Publisher
from raygrid.node.workspace import Workspace

LOOK_S = 1.0
DISK_RESERVE = 64 * 1024**2


class Health:
    """Looks after one node; `why` is None while it is well. `close` ends its thread."""

    def __init__(self, node_id: str, places: Workspace, blobs: BlobStore, publisher: Publisher) -> None:
        self._node_id = node_id
        self._places = places
        self._blobs = blobs
        self._publisher = publisher
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look_forever, name="raygrid-health", daemon=True)
        self.why: str | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; a look that hangs is left to end by itself."""
        self._closed.set()
        self._thread.join(timeout=2)

    def _look_forever(self) -> None:
        while not self._closed.wait(LOOK_S):
            self.why = self._look()

    def _look(self) -> str | None:
        try:
            free = self._places.free_bytes()
        except OSError as error:
            return f"its work directory {self._places.root} cannot be used: {error}"
        if free < DISK_RESERVE:
            return f"its disk is nearly full: {free} bytes free at {self._places.root}"
        if self._publisher.trouble is None:
            return None
        try:
            self._blobs.put_now(f"uploads/probe-{self._node_id}", b"")
        except Exception as error:  # obstore's errors have no common base
            return f"the blob store does not take results: {error}"
        self._publisher.trouble = None
        return None
