"""The events of a simulation, in order: to compare two runs of a seed, and to read after a violation."""

from __future__ import annotations

import asyncio
import hashlib


class Trace:
    """Events with their virtual times."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lines: list[str] = []
        self._is_closed = False

    def __call__(self, line: str) -> None:
        """Record an event."""
        if not self._is_closed:
            self._lines.append(f"{self._loop.time():.6f} {line}")

    def close(self) -> None:
        """Record no further events."""
        self._is_closed = True

    def __len__(self) -> int:
        return len(self._lines)

    def digest(self) -> str:
        """The same for two runs only if every step of them was the same."""
        return hashlib.sha256("\n".join(self._lines).encode()).hexdigest()

    def last(self, count: int, about: str = "") -> list[str]:
        """The last events, all or those that mention something."""
        return [line for line in self._lines if about in line][-count:]
