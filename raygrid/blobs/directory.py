"""Blobs in a directory, which may be a share. Small blobs are written without obstore's threads."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from io import FileIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore
from uuid_utils import uuid4

from raygrid.blobs.keys import MARKER, new_upload_key
from raygrid.blobs.permissions import Permissions
from raygrid.blobs.port import AT_ONCE, PAGE, PART, Checks
from raygrid.blobs.upload_thread import GATHERED, UploadThread
from raygrid.errors import SettingsError
from raygrid.system.home import expanded

SYNCED = 8 * 1024**2  # bytes of a file after which writing them to the disk begins

_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_SYNC_FILE_RANGE_WRITE = 2


def directory_of(place: str) -> Path | None:
    """The directory that a setting names by path or by `file:` URL; None if it names an object store.

    Raises:
        SettingsError: the URL has a `?` or a `#`, which end the path in a URL.
    """
    if not place.startswith("file:"):
        is_path = place.startswith(("/", "~", ".")) or not urlsplit(place).scheme
        return expanded(place).absolute() if is_path else None
    if set(place) & set("?#"):
        raise SettingsError(
            "storage.blobs: a file: URL must have no '?' or '#'; if they belong to the directory's name, write the "
            "plain path instead of a URL"
        )
    return expanded(unquote(urlsplit(place).path)).absolute()


class Directory:
    """A directory of blobs, as a `BlobPlace`."""

    is_directory = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.permissions = Permissions(path)
        self.shown = os.fsencode(path).decode(errors="backslashreplace")  # printable
        self._synced: set[Path] = set()  # directories whose names survive a power cut
        self._opened: tuple[tuple[int, int], Any] = ((0, 0), None)

    @property
    def _obstore(self) -> Any:
        """The directory as a store of obstore.

        obstore resolves a directory only once. It is opened again if a share was mounted there or a link has changed,
        so that no write goes to the old place.
        """
        found = self.path.stat()
        identity = (found.st_dev, found.st_ino)
        known, store = self._opened
        if known != identity:
            store = LocalStore(self.path, automatic_cleanup=False)
            self._opened = (identity, store)
        return store

    def make(self) -> None:
        """See `BlobPlace.make`."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def exists(self) -> bool:
        """See `BlobPlace.exists`."""
        return self.path.is_dir()

    def marker(self) -> bytes:
        """See `BlobPlace.marker`."""
        return (self.path / MARKER).read_bytes()

    def create_marker(self, data: bytes) -> bool:
        """See `BlobPlace.create_marker`."""
        try:
            obstore.put(self._obstore, MARKER, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        self._settle(self.path / MARKER)
        return True

    def put(self, key: str, data: bytes) -> None:
        """See `BlobPlace.put`; without obstore's threads, which cost more than writing a small blob."""
        path = self.path / key
        staged = f"{path}#{uuid4().int}"  # obstore skips such names in its listings
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        mode = self.permissions.file
        try:
            fd = os.open(staged, flags, mode)
        except FileNotFoundError:
            self.permissions.make_parents(path)
            fd = os.open(staged, flags, mode)
        try:
            with open(fd, "wb", buffering=0) as file:
                _write_all(file, data)
                os.fsync(fd)
            os.rename(staged, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(staged)
            raise
        self.sync_directory(path.parent)

    def put_file(self, key: str, path: Path) -> None:
        """See `BlobPlace.put_file`."""
        obstore.put(self._obstore, key, path, chunk_size=PART, max_concurrency=AT_ONCE)
        self._settle(self.path / key)

    def get(self, key: str, offset: int, size: int) -> bytes:
        """See `BlobPlace.get`; without obstore's threads, which cost more than reading a small blob."""
        with open(self.path / key, "rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
            while len(data) < size and (more := file.read(size - len(data))):
                data += more
            return data

    def size(self, key: str) -> int:
        """See `BlobPlace.size`."""
        return (self.path / key).stat().st_size

    def sink(self, checks: Checks) -> FileSink:
        """See `BlobPlace.sink`."""
        return FileSink(self, checks)

    async def sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        """See `BlobPlace.sizes`."""
        return await asyncio.to_thread(self._sizes, keys)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `BlobPlace.delete`."""
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._obstore, key)

    async def older(self, prefix: str, before: datetime) -> AsyncIterator[Sequence[str]]:
        """See `BlobPlace.older`."""
        if not self.exists():
            return  # there are no blobs yet
        async for page in obstore.list(self._obstore, prefix, chunk_size=PAGE):
            yield [entry["path"] for entry in page if entry["last_modified"] < before]

    def sync_directory(self, directory: Path) -> None:
        """Sync a directory, and the first time also its parents, which may be new too."""
        _sync(directory)
        if directory not in self._synced:
            above = directory
            while above not in (self.path, above.parent):
                above = above.parent
                _sync(above)
            self._synced.add(directory)

    def _settle(self, path: Path) -> None:
        """Set the mode of a file that obstore has written, and sync it."""
        self.permissions.restrict(path)
        _sync(path)
        self.sync_directory(path.parent)

    def _sizes(self, keys: Iterable[str]) -> dict[str, int]:
        sizes = {}
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                sizes[key] = self.size(key)
        return sizes


class FileSink:
    """A long upload into a directory. Writing to the disk begins while further bytes arrive."""

    room = GATHERED

    def __init__(self, directory: Directory, checks: Checks) -> None:
        self._directory = directory
        self._checks = checks
        self._path = directory.path / new_upload_key()
        self._file: FileIO | None = None
        self._written = self._begun = 0

    async def take(self, data: bytes, digest: Callable[[bytes], object], thread: UploadThread) -> None:
        """See `Sink.take`."""
        thread.begin(self._append, data, digest)

    async def settle(self, key: str, thread: UploadThread) -> None:
        """See `Sink.settle`."""
        thread.begin(self._settle, key)
        await thread.finish_oldest()

    async def discard(self, thread: UploadThread) -> None:
        """See `Sink.discard`."""
        thread.begin(self._discard)
        await thread.finish_all()

    def _append(self, data: bytes, digest: Callable[[bytes], object]) -> None:
        if self._file is None:
            self._file = self._open()
        digest(data)
        _write_all(self._file, data)
        self._written += len(data)
        if self._written - self._begun >= SYNCED and _sync_file_range is not None:
            # This only starts writing; its result does not matter, because fsync follows.
            _sync_file_range(self._file.fileno(), self._begun, self._written - self._begun, _SYNC_FILE_RANGE_WRITE)
            self._begun = self._written

    def _open(self) -> FileIO:
        self._checks.before_writing()
        try:
            return FileIO(self._path, "xb", opener=self._create)
        except FileNotFoundError:
            self._directory.permissions.make_parents(self._path)
            return FileIO(self._path, "xb", opener=self._create)

    def _create(self, path: str, flags: int) -> int:
        return os.open(path, flags, self._directory.permissions.file)

    def _settle(self, key: str) -> None:
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._file.close()
        path = self._directory.path / key
        try:
            os.rename(self._path, path)
        except FileNotFoundError:
            self._checks.before_writing()  # no directories are made if the share is gone
            self._directory.permissions.make_parents(path)
            os.rename(self._path, path)
        self._directory.sync_directory(path.parent)
        self._checks.after_writing(key)

    def _discard(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)


def _write_all(file: FileIO, data: bytes) -> None:
    """Write all bytes to a raw file, whose `write` may take only some of them."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
