"""Checks whether a node can work: whether its disk has free space, and whether the blob store takes results.

A thread checks once a second, apart from the watchdog, because a disk or a network file system may hang. It reads the
marker of the blob store; the leader decides whether that is the marker of the grid.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from raygrid.blobs import BlobStore
from raygrid.node.attempt.workspace import Workspace
from raygrid.node.publisher import Publisher

LOOK_S = 1.0
LOOK_AT_REMOTE_S = 10.0  # a marker in an object store is read this often, while there is no trouble
FIRST_LOOK_S = 1.0
STUCK_S = 15.0


class NodeHealth:
    """Checks one node; `why` is None while it is healthy. `close` ends the thread.

    `changed` is called from the thread when a check has another result than the check before.
    """

    def __init__(
        self,
        node_id: str,
        workspace: Workspace,
        blobs: BlobStore,
        publisher: Publisher,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._node_id = node_id
        self._workspace = workspace
        self._blobs = blobs
        self._publisher = publisher
        self._changed = changed
        self._closed = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._look_forever, name="raygrid-health", daemon=True)
        self._why: str | None = "its disk and the blob store have not been checked yet"
        self._began: float | None = None
        self._blobs_looked_at = -LOOK_AT_REMOTE_S

    @property
    def why(self) -> str | None:
        """Why the node can take no work now."""
        began = self._began
        if began is not None and time.monotonic() - began > STUCK_S:
            since_s = time.monotonic() - began
            return f"its disk or the blob store {self._blobs.shown} has not answered for {since_s:.0f} s"
        # The leader gets the marker, and reports a blob store that is not the grid's.
        return self._why or (None if self._blobs.sees_another else self._blobs.trouble)

    def start(self) -> None:
        """Start, and wait for the first check, so that the node can get work."""
        self._thread.start()
        self._looked.wait(FIRST_LOOK_S)

    def close(self) -> None:
        """Stop, without waiting for a check that hangs."""
        self._closed.set()
        self._thread.join(timeout=2)

    def _look_forever(self) -> None:
        before: tuple[str | None, str | None] = (None, None)
        while not self._closed.is_set():
            self._began = time.monotonic()
            self._why = self._look()
            self._began = None
            self._looked.set()
            if (self.why, self._blobs.seen) != before:
                before = (self.why, self._blobs.seen)
                self._changed()
            self._closed.wait(LOOK_S)

    def _look(self) -> str | None:
        try:
            free = self._workspace.free_bytes()
        except OSError as error:
            return f"its work directory {self._workspace.root} cannot be used: {error}"
        try:
            return self._workspace.why_full(free) or self._look_at_blobs()
        except Exception as error:  # obstore's errors have no common base
            return f"the blob store does not take results: {error}"

    def _look_at_blobs(self) -> str | None:
        in_trouble = self._publisher.trouble is not None or self._blobs.trouble is not None
        due_s = LOOK_AT_REMOTE_S if self._blobs.seen and not self._blobs.is_directory else 0.0
        if self._why is None and not in_trouble and time.monotonic() - self._blobs_looked_at < due_s:
            return None
        self._blobs.read_marker_now()
        if in_trouble and not self._blobs.sees_another:
            self._blobs.put_now(f"uploads/probe-{self._node_id}", b"")
        self._blobs_looked_at = time.monotonic()
        self._publisher.trouble = self._blobs.trouble = None
        return None
