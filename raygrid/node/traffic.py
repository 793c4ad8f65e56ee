"""Counts the payload bytes that a node moves; the node reports them with its state."""

from __future__ import annotations

import threading

from raygrid.models import NodeTraffic


class TrafficMeter:
    """Counters of one life of a node agent; thread-safe."""

    def __init__(self) -> None:
        self._total = NodeTraffic()
        self._lock = threading.Lock()

    def add(self, *, inputs: int = 0, data: int = 0, results: int = 0, served: int = 0) -> None:
        """Add bytes by purpose; see `NodeTraffic`."""
        with self._lock:
            total = self._total
            self._total = NodeTraffic(
                total.inputs + inputs, total.data + data, total.results + results, total.served + served
            )

    @property
    def total(self) -> NodeTraffic:
        """The bytes so far."""
        return self._total
