"""A sorted collection of names whose keys change often; placement and routing choose from it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any


class SortedNames:
    """Names sorted by key; equal keys are sorted by name.

    A change costs two binary searches and one move of a block of pointers. With ten thousand names this is negligible
    compared with the rest of a decision.
    """

    __slots__ = ("_keys", "_line")

    def __init__(self) -> None:
        self._keys: dict[str, Any] = {}
        self._line: list[tuple[Any, str]] = []

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, name: object) -> bool:
        return name in self._keys

    def __iter__(self) -> Iterator[str]:
        """Iterate from the smallest key."""
        return (name for _, name in self._line)

    def __reversed__(self) -> Iterator[str]:
        """Iterate from the greatest key; equal keys from the greatest name."""
        return (name for _, name in reversed(self._line))

    def put(self, name: str, key: Any) -> None:
        """Add a name, or change its key."""
        if name in self._keys:
            if self._keys[name] == key:
                return
            self.drop(name)
        self._keys[name] = key
        insort(self._line, (key, name))

    def drop(self, name: str) -> None:
        """Remove a name, if present."""
        if name in self._keys:
            key = self._keys.pop(name)
            del self._line[bisect_left(self._line, (key, name))]
