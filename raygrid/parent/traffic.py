"""Counts the payload bytes that this parent moves, by purpose and group, to show the traffic between racks.

Bodies and results only: job descriptions, polls and HTTP headers are not counted.
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
    """Counters of one parent since its start. Thread-safe.

    Attributes:
        parent_id: unique for each start of each parent; several may share one address.
        since: start of counting.
    """

    def __init__(self) -> None:
        self.parent_id = uuid4().hex[:12]
        self.since = datetime.now(UTC)
        self._bytes: Counter[tuple[Purpose, str]] = Counter()
        self._lock = threading.Lock()

    def count(self, purpose: Purpose, group_id: str, size: int) -> None:
        """Add bytes; `group_id` is empty for bytes received from clients or stored for them."""
        with self._lock:
            self._bytes[purpose, group_id] += size

    def received(self, files: Iterable[ReceivedFile]) -> None:
        """Count files of a request that has been read."""
        for file in files:
            self.count("received", "", file.blob.size)
            if file.inline is None:
                self.count("stored", "", file.blob.size)

    def handed_over(self, group_id: str, jobs: Iterable[NewJob]) -> None:
        """Count the inputs that are sent to a group with their jobs."""
        self.count("inline", group_id, sum(len(job.spec.inline or b"") for job in jobs))

    def of(self, purpose: Purpose, group_id: str = "") -> int:
        """Bytes counted so far."""
        return self._bytes[purpose, group_id]

    def groups(self) -> set[str]:
        """The groups with counted bytes."""
        return {group_id for _, group_id in list(self._bytes) if group_id}
