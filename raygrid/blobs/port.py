"""What a place for blobs must offer: a directory (`directory.py`) and an object store (`object_store.py`) do.

A place stores and reads bytes. It does not know which grid it belongs to, and lets every error of the system or of
obstore pass; `store.py` checks the marker, compares digests and turns errors into those of the grid.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol


class Checks(Protocol):
    """The checks of the grid's marker around a write."""

    def before_writing(self) -> None:
        """Refuse to write into a place that is not the grid's."""

    def after_writing(self, key: str) -> None:
        """Make sure that a blob that was written lies in the grid's place."""


class Worker(Protocol):
    """The thread of an upload, which does its work in order."""

    def begin(self, work: Callable[..., object], *args: Any) -> None:
        """Have the thread do this after what it was given before."""

    async def finish_oldest(self) -> None:
        """Wait until the oldest piece of work is done; raises its error."""

    async def finish_all(self) -> None:
        """Wait until the thread has done everything, whatever errors there were."""


class Sink(Protocol):
    """The end of an upload that is too long to be held in memory.

    Attributes:
        room: bytes that are gathered before the first of them are written.
    """

    room: int

    async def take(self, data: bytes, digest: Callable[[bytes], object], worker: Worker) -> None:
        """Have the thread digest these bytes, and write them after those before."""

    async def settle(self, key: str, worker: Worker) -> None:
        """Let what was written lie under its key; it survives a power cut from then on."""

    async def discard(self, worker: Worker) -> None:
        """Remove what was written, once the thread has come to it."""


class BlobPlace(Protocol):
    """Where blobs are.

    Methods without `async` are called from threads.

    Attributes:
        shown: the place, for people.
        is_directory: whether looking at its marker costs next to nothing; it may then be a share that is not mounted.
    """

    shown: str
    is_directory: bool

    def make(self) -> None:
        """Make the place if it can be made and is missing."""

    def exists(self) -> bool:
        """Whether the place is there, as far as that can be seen without asking it."""

    def marker(self) -> bytes:
        """The content of the marker.

        Raises:
            FileNotFoundError, NotADirectoryError: there is none.
        """

    def create_marker(self, data: bytes) -> bool:
        """Write the marker if there is none; False if there was one."""

    def put(self, key: str, data: bytes) -> None:
        """Store bytes whole or not at all; they survive a power cut from then on."""

    def put_file(self, key: str, path: Path) -> None:
        """Store a file without reading it whole into memory."""

    def get(self, key: str, offset: int, size: int) -> bytes:
        """A part of a blob, shorter if the blob ends before."""

    def size(self, key: str) -> int:
        """How large a blob is.

        Raises:
            FileNotFoundError: it is not there.
        """

    def sink(self, checks: Checks) -> Sink:
        """The end of a new long upload."""

    async def sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        """How large those of these blobs are that are there."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove blobs; those that are not there are no error."""

    def older(self, prefix: str, before: datetime) -> AsyncIterator[Sequence[str]]:
        """Pages of keys under a prefix that were last written before some moment."""
