"""Names in the order of keys that change often: what placement and routing choose from, kept from choice to choice."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any


class Ordered:
    """Names by key, equal keys by name.

    A change costs two binary searches, and moves a block of pointers, which at ten thousand names is still nothing
    beside the rest of a decision.
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
        """The smallest key first."""
        return (name for _, name in self._line)

    def __reversed__(self) -> Iterator[str]:
        """The greatest key first, and of equal ones the greatest name."""
        return (name for _, name in reversed(self._line))

    def put(self, name: str, key: Any) -> None:
        """Add a name, or give it another key."""
        if name in self._keys:
            if self._keys[name] == key:
                return
            self.drop(name)
        self._keys[name] = key
        insort(self._line, (key, name))

    def drop(self, name: str) -> None:
        """Take a name out, if it is there."""
        if name in self._keys:
            key = self._keys.pop(name)
            del self._line[bisect_left(self._line, (key, name))]
