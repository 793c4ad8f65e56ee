"""The port of a place for blobs; its adapters are a directory (`directory.py`) and an object store (`object_store.py`).

A place stores and reads bytes. It does not check to which grid it belongs, and raises the errors of the system or of
obstore; `store.py` checks the marker, compares digests and translates errors into those of the grid.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from raygrid.blobs.upload_thread import UploadThread

PART = 8 * 1024**2  # bytes of a part of a long file; S3 requires at least 5 MB, except for the last part
AT_ONCE = 2  # parts of one file that are copied at the same time
PAGE = 500  # keys


class Checks(Protocol):
    """The checks of the grid's marker around a write."""

    def before_writing(self) -> None:
        """Refuse to write to a place that is not the grid's."""

    def after_writing(self, key: str) -> None:
        """Check that a written blob is in the grid's place."""


class Sink(Protocol):
    """The target of an upload that is too long to be held in memory.

    Attributes:
        room: bytes that are gathered in memory before the first ones are written.
    """

    room: int

    async def take(self, data: bytes, digest: Callable[[bytes], object], thread: UploadThread) -> None:
        """Digest bytes in the thread, and append them."""

    async def settle(self, key: str, thread: UploadThread) -> None:
        """Store the written bytes under their key; they survive a power cut from then on."""

    async def discard(self, thread: UploadThread) -> None:
        """Remove the written bytes."""


class BlobPlace(Protocol):
    """A place that stores blobs.

    Methods without `async` block and are called from threads.

    Attributes:
        shown: the place, for messages.
        is_directory: whether it is a directory: reading the marker is cheap, and it may be a share that is not mounted.
    """

    shown: str
    is_directory: bool

    def make(self) -> None:
        """Make a missing directory."""

    def exists(self) -> bool:
        """Whether the directory exists; true for an object store."""

    def marker(self) -> bytes:
        """Read the marker.

        Raises:
            FileNotFoundError, NotADirectoryError: there is no marker.
        """

    def create_marker(self, data: bytes) -> bool:
        """Write the marker; return False if there was one already."""

    def put(self, key: str, data: bytes) -> None:
        """Store bytes atomically; they survive a power cut from then on."""

    def put_file(self, key: str, path: Path) -> None:
        """Store a file without reading all of it into memory."""

    def get(self, key: str, offset: int, size: int) -> bytes:
        """Read a part of a blob; shorter if the blob ends before."""

    def size(self, key: str) -> int:
        """The size of a blob.

        Raises:
            FileNotFoundError: the blob does not exist.
        """

    def sink(self, checks: Checks) -> Sink:
        """Make the target of a new long upload."""

    async def sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        """The sizes of the given blobs that exist."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove blobs; missing ones are ignored."""

    def older(self, prefix: str, before: datetime) -> AsyncIterator[Sequence[str]]:
        """List pages of keys with a prefix that were last written before an instant."""
