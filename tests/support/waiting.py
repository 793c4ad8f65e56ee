"""How often a test looks whether a condition holds."""

from __future__ import annotations

from collections.abc import Iterator


def pauses(longest_s: float = 0.1) -> Iterator[float]:
    """Seconds between two looks. They grow: a short wait ends soon, and a long one leaves the processors to others."""
    pause_s = 0.01
    while True:
        yield pause_s
        pause_s = min(1.5 * pause_s, longest_s)
