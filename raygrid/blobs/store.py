"""The blob store of a grid: checks the marker, compares digests, and translates errors into the grid's.

The bytes are in a `BlobPlace`: a directory or an object store. Parents use the asynchronous methods; threads of nodes
use those that end in `_now`, which block.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError, GenericError

from raygrid.blobs.directory import Directory, directory_of
from raygrid.blobs.object_store import SENDING, ObjectStore, first_line
from raygrid.blobs.port import BlobPlace
from raygrid.blobs.upload import Upload
from raygrid.core.blob_marker import wrong_blob_store_message
from raygrid.errors import BlobDamagedError, BlobNotFoundError, RaygridError, SettingsError, UnavailableError
from raygrid.models import BlobSlice

FETCH_PART = 4 * 1024**2  # bytes
# Long enough for every node to notice an outage before the first attempt fails by it. Otherwise a job could fail on
# several nodes in a row.
RETRY_S = 20.0
AGAIN_S = 5.0


def _place(url: str, options: Mapping[str, Any], retry_s: float) -> BlobPlace:
    directory = directory_of(url)
    if directory is None:
        return ObjectStore(url, options, retry_s)
    if options:
        raise SettingsError("storage.blob_options are for object stores; storage.blobs is a directory")
    return Directory(directory)


class BlobStore:
    """Blobs under a directory or a URL (`s3://bucket/prefix`, `gs://…`, `az://…`).

    A directory may be a share that is not mounted, so a blob store has a marker. After `expect`, a write to a directory
    succeeds only if the marker is there before and after it, and a blob counts as missing only if the marker is right.

    Args:
        url: a path, a `file:` URL, or an object store's URL; credentials come from the environment.
        options: options of obstore, such as `endpoint`, `region` or `allow_http`.
        retry_s: how long a call to an object store is tried again before it fails.

    Attributes:
        shown: the place of the blobs, for messages.
        seen: the marker at the latest check; None before the first one, and if there was none.
        trouble: the error of the latest call that found the store unavailable; the code that handles it clears it.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, retry_s: float = RETRY_S) -> None:
        self.url = url
        self.seen: str | None = None
        self.trouble: str | None = None
        self._expected: str | None = None
        self._place = _place(url, options or {}, retry_s)
        self.shown = self._place.shown

    @property
    def is_directory(self) -> bool:
        """Whether the blobs are in a directory."""
        return self._place.is_directory

    @contextlib.contextmanager
    def as_unavailable(self) -> Iterator[None]:
        """Translate errors of an unavailable or full blob store into `UnavailableError`; the call may be repeated."""
        try:
            yield
        except (OSError, BaseError) as error:
            raise self._unavailable(first_line(error)) from error

    def _unavailable(self, what: str) -> UnavailableError:
        self.trouble = f"the blob store {self.shown} cannot be used now: {what}"
        return UnavailableError(f"{self.trouble}; try again", retry_after_s=AGAIN_S)

    # --- which store it is --------------------------------------------------------------------------------------

    def expect(self, marker: str) -> None:
        """Accept only a blob store with this marker from now on."""
        self._expected = marker

    def read_marker_now(self) -> str | None:
        """Read the marker; None if there is none.

        Raises:
            UnavailableError: the store does not answer.
        """
        try:
            data = self._place.marker()
        except (FileNotFoundError, NotADirectoryError):
            self.seen = None
        except (OSError, BaseError) as error:
            raise self._unavailable(first_line(error)) from error
        else:
            self.seen = data.decode(errors="replace").strip() or None
        return self.seen

    def create_marker_now(self, marker: str, *, make_directory: bool) -> str | None:
        """Write a marker if there is none, and return the one that is there then.

        Args:
            marker: the marker.
            make_directory: whether to make a missing directory. It must be false if other machines share the directory:
                the mount point of an unmounted share would become a local directory.

        Raises:
            UnavailableError: the write failed, or there is no such directory.
        """
        if make_directory:
            with self.as_unavailable():
                self._place.make()
        elif not self._place.exists():
            raise self._unavailable("the directory does not exist; mount the share there, or make the directory")
        with self.as_unavailable():
            self._place.create_marker(f"{marker}\n".encode())
        return self.read_marker_now()

    @property
    def sees_another(self) -> bool:
        """Whether the latest check found another marker than expected, or none."""
        return self._expected is not None and self.seen != self._expected

    async def require(self) -> None:
        """Check that this is the grid's blob store; see `require_now`."""
        await asyncio.to_thread(self.require_now)

    def require_now(self) -> None:
        """Check that this is the grid's blob store.

        Raises:
            UnavailableError: it is another one, or does not answer.
        """
        if self._expected is not None and self.read_marker_now() != self._expected:
            raise self._unavailable(wrong_blob_store_message(self._expected, self.seen, self.shown))

    # --- writing ------------------------------------------------------------------------------------------------

    def before_writing(self) -> None:
        """Refuse to write to another blob store than the grid's; without an expected marker, make the directory.

        Raises:
            UnavailableError: it is another one, or does not answer.
        """
        if self._expected is None:
            self._place.make()
        elif self._place.is_directory:
            self.require_now()
        elif self.seen not in (None, self._expected):
            raise self._unavailable(wrong_blob_store_message(self._expected, self.seen, self.shown))

    def after_writing(self, key: str) -> None:
        """Check that a written blob is in the grid's blob store, if that is a directory.

        The blob is checked after the marker: if the share was mounted again after the write, the share hides the blob.
        """
        if self._place.is_directory and self._expected is not None:
            self.require_now()
            self._place.size(key)

    def new_upload(self) -> Upload:
        """Start writing a blob piece by piece."""
        return Upload(self, self._place.sink(self))

    async def upload(self, chunks: AsyncIterator[bytes], key_for: Callable[[str], str]) -> BlobSlice:
        """Store a stream under a key made from its sha256; if the stream fails, nothing is stored."""
        upload = self.new_upload()
        try:
            async for chunk in chunks:
                await upload.write(chunk)
            return await upload.finish(key_for)
        except BaseException:
            await asyncio.shield(upload.abort())
            raise

    async def put(self, key: str, data: bytes) -> None:
        """Store small bytes under a key."""
        await asyncio.to_thread(self.put_now, key, data)

    def put_now(self, key: str, data: bytes) -> None:
        """Store bytes under a key."""
        with self.as_unavailable():
            self.before_writing()
            self._place.put(key, data)
            self.after_writing(key)

    def put_file_now(self, key: str, path: Path) -> None:
        """Store a file under a key, without reading all of it into memory."""
        with self.as_unavailable():
            self.before_writing()
            self._place.put_file(key, path)
            self.after_writing(key)

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(self, blob: BlobSlice) -> bytes:
        """Read a slice, and compare it with its digest if it has one.

        Raises:
            BlobNotFoundError: the blob does not exist.
            BlobDamagedError: the bytes differ from what was stored.
        """
        return await asyncio.to_thread(self.read_now, blob)

    def read_now(self, blob: BlobSlice) -> bytes:
        """Read a slice; raises the errors of `read`."""
        if blob.size == 0:
            return b""
        with self.as_unavailable():
            try:
                data = self._place.get(blob.key, blob.offset, blob.size)
            except FileNotFoundError:
                raise self._missing(blob.key) from None
            except GenericError as error:
                # obstore has no separate error for a slice that begins after the end of its blob. But where the store
                # cannot be reached, asking for the size would only take the same time again.
                if SENDING not in first_line(error):
                    self._require_size(blob)
                raise
        if len(data) != blob.size:
            raise BlobDamagedError(f"blob {blob.key} is shorter than expected: {len(data)} of {blob.size} bytes")
        if blob.digest and hashlib.sha256(data).hexdigest() != blob.digest:
            end = blob.offset + blob.size
            raise BlobDamagedError(
                f"blob {blob.key} is damaged: its bytes {blob.offset} to {end} differ from what was stored "
                "(sha256 differs)"
            )
        return data

    def _missing(self, key: str) -> RaygridError:
        """The error for a missing blob: another blob store than the grid's, or a lost blob."""
        try:
            self.require_now()
        except UnavailableError as error:
            return error
        return BlobNotFoundError(f"blob {key} is not in the blob store {self.shown}")

    def _require_size(self, blob: BlobSlice) -> None:
        try:
            size = self._place.size(blob.key)
        except FileNotFoundError:
            raise self._missing(blob.key) from None
        if size < blob.offset + blob.size:
            needed = blob.offset + blob.size
            raise BlobDamagedError(f"blob {blob.key} is shorter than expected: {size} of {needed} bytes")

    def fetch_now(self, blob: BlobSlice, path: Path) -> None:
        """Write a slice to a new file, and check its digest; raises the errors of `read`."""
        hasher = hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, blob.size, FETCH_PART):
                part = BlobSlice(blob.key, blob.offset + start, min(FETCH_PART, blob.size - start), "")
                data = self.read_now(part)
                hasher.update(data)
                file.write(data)
        if hasher.hexdigest() != blob.digest:
            raise BlobDamagedError(f"blob {blob.key} is damaged: it differs from what was stored (sha256 differs)")

    async def sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        """The sizes of the given blobs that exist, with one request for each.

        Raises:
            UnavailableError: the store does not answer.
        """
        with self.as_unavailable():
            return await self._place.sizes(keys)

    # --- retention ----------------------------------------------------------------------------------------------

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove blobs; missing ones are ignored."""
        with self.as_unavailable():
            await self._place.delete(list(keys))

    async def list_older(self, prefix: str, age: timedelta) -> AsyncIterator[Sequence[str]]:
        """List pages of keys with a prefix that were last written longer than `age` ago."""
        async for page in self._place.older(prefix, datetime.now(UTC) - age):
            yield page
