"""The adapter to obstore: streams in while hashing, reads slices, and puts bytes on disk before it says so.

Asynchronous methods serve the parent; the `_now` ones serve the node's threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url
from uuid_utils import uuid4

from raygrid.errors import BlobNotFoundError, SettingsError, UnavailableError
from raygrid.models import BlobSlice

CHUNK = 4 * 1024**2
_DAY = re.compile(r"^(?:inputs|results)/(\d{4}-\d{2}-\d{2})/")


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def input_key(digest: str) -> str:
    """Key of a job's input that arrives today."""
    return f"inputs/{_today()}/{digest}"


def data_key(digest: str) -> str:
    """Key of a shared input."""
    return f"data/{digest}"


def new_result_key() -> str:
    """A fresh key for a result or a pack of results."""
    return f"results/{_today()}/{uuid4()}"


def day_of(key: str) -> datetime | None:
    """The day in a key of an input or a result; None for other blobs."""
    match = _DAY.match(key)
    return datetime.strptime(match[1], "%Y-%m-%d").replace(tzinfo=UTC) if match else None


class BlobStore:
    """Blobs under a directory or a URL (`s3://bucket/prefix`, `gs://…`, `az://…`).

    Args:
        url: a path, a `file:` URL, or an object store's URL; credentials come from the environment.
        options: passed on to obstore, such as `endpoint` or `region`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        scheme = urlsplit(url).scheme
        self._directory: Path | None = None
        if scheme in ("", "file"):
            path = urlsplit(url).path if scheme == "file" else url
            self._directory = Path(path).expanduser().absolute()
            self._directory.mkdir(parents=True, exist_ok=True)
            self._store: Any = LocalStore(self._directory, automatic_cleanup=False)
        else:
            try:
                self._store = from_url(url, **options)
            except Exception as error:
                raise SettingsError(f"storage.blobs: cannot use {url!r}: {error}") from error

    # --- writing ------------------------------------------------------------------------------------------------

    def new_upload(self) -> Upload:
        """A blob that is written piece by piece."""
        return Upload(self)

    async def upload(self, chunks: AsyncIterator[bytes], key_for: Callable[[str], str]) -> BlobSlice:
        """Store a stream under a key made from its sha256; an error of the stream leaves nothing behind."""
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
        """Store bytes under a key, from a thread."""
        obstore.put(self._store, key, data, use_multipart=False)
        self._flush(key)

    def put_file_now(self, key: str, path: Path) -> None:
        """Store a file under a key, from a thread, without reading it whole into memory."""
        obstore.put(self._store, key, path, chunk_size=CHUNK)
        self._flush(key)

    def _flush(self, key: str) -> None:
        """On a local directory, wait until the blob survives a power cut; object stores promise that themselves."""
        if self._directory is None:
            return
        path = self._directory / key
        for each in (path, path.parent):
            fd = os.open(each, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(self, blob: BlobSlice) -> bytes:
        """The bytes of a slice.

        Raises:
            BlobNotFoundError: they are not there.
        """
        return await asyncio.to_thread(self.read_now, blob)

    def read_now(self, blob: BlobSlice) -> bytes:
        """The bytes of a slice, from a thread."""
        if blob.size == 0:
            return b""
        try:
            data = bytes(obstore.get_range(self._store, blob.key, start=blob.offset, length=blob.size))
        except FileNotFoundError:
            raise BlobNotFoundError(f"blob {blob.key} is not in the blob store {self.url}") from None
        if len(data) != blob.size:
            raise BlobNotFoundError(f"blob {blob.key} is shorter than expected: {len(data)} of {blob.size} bytes")
        return data

    async def stream(self, blob: BlobSlice) -> AsyncIterator[bytes]:
        """The bytes of a slice in chunks of a few megabytes."""
        for start in range(0, blob.size, CHUNK):
            part = BlobSlice(blob.key, blob.offset + start, min(CHUNK, blob.size - start), "")
            yield await self.read(part)

    def open_now(self, blob: BlobSlice) -> io.BufferedIOBase:
        """A whole blob as a file that can be read and sought, from a thread."""
        return io.BufferedReader(_BlobFile(self, blob))

    def fetch_now(self, blob: BlobSlice, path: Path) -> None:
        """Write a slice to a new file, from a thread, and check its digest.

        Raises:
            BlobNotFoundError: it is not there, or is not what it should be.
        """
        hasher = hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, blob.size, CHUNK):
                part = BlobSlice(blob.key, blob.offset + start, min(CHUNK, blob.size - start), "")
                data = self.read_now(part)
                hasher.update(data)
                file.write(data)
        if hasher.hexdigest() != blob.digest:
            raise BlobNotFoundError(f"blob {blob.key} does not have the content it should have (sha256 differs)")

    # --- keeping order ------------------------------------------------------------------------------------------

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove blobs; those that are not there are no error."""
        for key in keys:
            try:
                await obstore.delete_async(self._store, key)
            except FileNotFoundError:
                continue

    async def list_older(self, prefix: str, age: timedelta) -> AsyncIterator[Sequence[str]]:
        """Pages of keys under a prefix that were last written longer than `age` ago."""
        before = datetime.now(UTC) - age
        async for page in obstore.list(self._store, prefix, chunk_size=500):
            yield [entry["path"] for entry in page if entry["last_modified"] < before]


@contextlib.contextmanager
def _as_unavailable() -> Iterator[None]:
    """Tell a blob store that is away or full from a mistake of ours: trying again later is safe."""
    try:
        yield
    except (OSError, BaseError) as error:
        raise UnavailableError(
            f"the blob store does not take data now: {error}; try again", retry_after_s=5.0
        ) from error


class Upload:
    """A blob on its way in: hashed while it is written, holding a few chunks in memory, never the whole.

    It counts only once `finish` has returned; `abort` (or a crash and a later sweep) removes what is there.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._temporary = f"uploads/{uuid4()}"
        self._hasher = hashlib.sha256()
        self._writer: Any = None
        self.size = 0

    async def write(self, chunk: bytes) -> None:
        """Add bytes."""
        with _as_unavailable():
            if self._writer is None:
                self._writer = obstore.open_writer_async(self._blobs._store, self._temporary, buffer_size=CHUNK)
            self._hasher.update(chunk)
            self.size += len(chunk)
            await self._writer.write(chunk)

    async def finish(self, key_for: Callable[[str], str]) -> BlobSlice:
        """Move it to the key made from its digest; it survives a power cut from then on."""
        if self._writer is None:
            await self.write(b"")
        digest = self._hasher.hexdigest()
        key = key_for(digest)
        with _as_unavailable():
            await self._writer.close()
            self._writer = None
            await obstore.rename_async(self._blobs._store, self._temporary, key)
            await asyncio.to_thread(self._blobs._flush, key)
        return BlobSlice(key, 0, self.size, digest)

    async def abort(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError, BaseError):
            if self._writer is not None:
                await self._writer.close()
            await self._blobs.delete([self._temporary])
        self._writer = None


class _BlobFile(io.RawIOBase):
    """A slice of a blob as a raw file."""

    def __init__(self, blobs: BlobStore, blob: BlobSlice) -> None:
        self._blobs = blobs
        self._blob = blob
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = max(0, min(len(buffer), self._blob.size - self._at))
        if size:
            part = BlobSlice(self._blob.key, self._blob.offset + self._at, size, "")
            buffer[:size] = self._blobs.read_now(part)
            self._at += size
        return size
