"""Payload bytes that this parent moves, by purpose and group, so that ops can see what crosses between racks.

Bodies and results only: job descriptions, polls and HTTP's own bytes are not counted.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal
from uuid import uuid4

from raygrid.models import NewJob
from raygrid.parent.http.forms import ReceivedFile

Purpose = Literal["received", "stored", "inline", "from_cache", "from_blobs"]


class ParentTraffic:
    """Counters of one parent, from its start on; safe to use from threads.

    Attributes:
        parent_id: tells this life of this parent from others behind the same address.
        since: when it began to count.
    """

    def __init__(self) -> None:
        self.parent_id = uuid4().hex[:12]
        self.since = datetime.now(UTC)
        self._bytes: Counter[tuple[Purpose, str]] = Counter()
        self._lock = threading.Lock()

    def count(self, purpose: Purpose, group_id: str, size: int) -> None:
        """Add bytes: received from clients or stored for them (no group), or moved to or from a group."""
        with self._lock:
            self._bytes[purpose, group_id] += size

    def received(self, files: Iterable[ReceivedFile]) -> None:
        """Count files of a request that has been read."""
        for file in files:
            self.count("received", "", file.blob.size)
            if file.inline is None:
                self.count("stored", "", file.blob.size)

    def handed_over(self, group_id: str, jobs: Iterable[NewJob]) -> None:
        """Count inputs that travel to a group with their jobs."""
        self.count("inline", group_id, sum(len(job.spec.inline or b"") for job in jobs))

    def of(self, purpose: Purpose, group_id: str = "") -> int:
        """Bytes counted so far."""
        return self._bytes[purpose, group_id]

    def groups(self) -> set[str]:
        """The groups of which something is counted."""
        return {group_id for _, group_id in list(self._bytes) if group_id}
