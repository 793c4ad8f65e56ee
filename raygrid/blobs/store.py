"""The adapter to obstore: streams in while hashing, reads slices, and puts bytes on disk before it says so.

Asynchronous methods serve the parent; the `_now` ones serve the node's threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import LocalStore
from uuid_utils import uuid4

from raygrid.blobs.backend import directory_of, first_line, open_remote, shown
from raygrid.blobs.permissions import Permissions
from raygrid.blobs.upload import AT_ONCE, PART, FileUpload, ObjectUpload, Upload, write_all
from raygrid.core.blob_marker import not_the_grids
from raygrid.errors import BlobDamagedError, BlobNotFoundError, RaygridError, SettingsError, UnavailableError
from raygrid.models import BlobSlice

MARKER = "grid/marker"
CHUNK = 4 * 1024**2
DELETE_TOGETHER = 500
LOOKS_TOGETHER = 32
# Long enough for every node to have noticed an outage before the first attempt fails by it: a job must not fail on one
# node after another that has not looked yet.
RETRY_S = 20.0
AGAIN_S = 5.0
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


def _sizes_below(directory: Path, keys: Iterable[str]) -> dict[str, int]:
    sizes = {}
    for key in keys:
        with contextlib.suppress(FileNotFoundError):
            sizes[key] = (directory / key).stat().st_size
    return sizes


def _sync_now(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: Path, offset: int, size: int) -> bytes:
    """Part of a file, as far as there is so much: without obstore's threads, which cost more than a small read."""
    with open(path, "rb", buffering=0) as file:
        file.seek(offset)
        data = file.read(size)
        while len(data) < size and (more := file.read(size - len(data))):
            data += more
        return data


class BlobStore:
    """Blobs under a directory or a URL (`s3://bucket/prefix`, `gs://…`, `az://…`).

    A directory may be a share that is not mounted, so a blob store carries a marker: once `expect` has said which, a
    write into a directory counts only if the marker is there before and after it, and a blob that is not found is
    called missing only where the marker is right.

    Args:
        url: a path, a `file:` URL, or an object store's URL; credentials come from the environment.
        options: passed on to obstore, such as `endpoint`, `region` or `allow_http`.
        retry_s: how long a call to an object store is tried again before it fails.

    Attributes:
        shown: where the blobs are, for people.
        seen: the marker at the latest look; None before the first, and where there was none.
        trouble: what went wrong in the latest call that found the store away; whoever looks after it clears it.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None, *, retry_s: float = RETRY_S) -> None:
        self.url = url
        self.seen: str | None = None
        self.trouble: str | None = None
        self._expected: str | None = None
        self._directory: Path | None = None
        self._lasting: set[Path] = set()  # directories whose names are known to survive a power cut
        self._local: tuple[tuple[int, int], Any] = ((0, 0), None)
        if (directory := directory_of(url)) is not None:
            if options:
                raise SettingsError("storage.blob_options are for object stores; storage.blobs is a directory")
            self._directory = directory
            self.permissions = Permissions(directory)
            self.shown = os.fsencode(self._directory).decode(errors="backslashreplace")  # can always be printed
        else:
            self._remote, self._hasty = open_remote(url, options or {}, retry_s)
            self.shown = shown(url)

    @property
    def is_directory(self) -> bool:
        """Whether looking at it costs next to nothing."""
        return self._directory is not None

    @property
    def _store(self) -> Any:
        """What obstore works on.

        obstore resolves a directory once and for all; a share that is mounted there later, or a link that points
        elsewhere by now, must not leave it writing into the old place.
        """
        if self._directory is None:
            return self._remote
        found = self._directory.stat()
        place = (found.st_dev, found.st_ino)
        known, store = self._local
        if known != place:
            store = LocalStore(self._directory, automatic_cleanup=False)
            self._local = (place, store)
        return store

    @contextlib.contextmanager
    def _as_unavailable(self) -> Iterator[None]:
        """Tell a blob store that is away or full from a mistake of ours: trying again later is safe."""
        try:
            yield
        except (OSError, BaseError) as error:
            raise self._away(first_line(error)) from error

    def _away(self, what: str) -> UnavailableError:
        self.trouble = f"the blob store {self.shown} cannot be used now: {what}"
        return UnavailableError(f"{self.trouble}; try again", retry_after_s=AGAIN_S)

    # --- which store it is --------------------------------------------------------------------------------------

    def expect(self, marker: str) -> None:
        """Work only where this marker is."""
        self._expected = marker

    def look_now(self) -> str | None:
        """The marker of the blob store that is there now, from a thread; None where there is none.

        Raises:
            UnavailableError: the store does not answer.
        """
        try:
            if self._directory is not None:
                data = (self._directory / MARKER).read_bytes()
            else:
                data = bytes(obstore.get(self._hasty, MARKER).bytes())
        except (FileNotFoundError, NotADirectoryError):
            self.seen = None
        except (OSError, BaseError) as error:
            raise self._away(first_line(error)) from error
        else:
            self.seen = data.decode(errors="replace").strip() or None
        return self.seen

    def place_marker_now(self, marker: str, *, make_directory: bool) -> str | None:
        """Leave a marker where there is none yet, from a thread; gives the one that is there then.

        Args:
            marker: the marker.
            make_directory: whether a directory that does not exist is made. A share's mount point would be a local
                directory then, so only where no other machine needs to see it.

        Raises:
            UnavailableError: the store does not take it, or there is no such directory.
        """
        if self._directory is not None:
            if make_directory:
                with self._as_unavailable():
                    self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not self._directory.is_dir():
                raise self._away("there is no such directory; mount the share there, or make the directory")
        with self._as_unavailable():
            try:
                obstore.put(self._store, MARKER, f"{marker}\n".encode(), mode="create", use_multipart=False)
            except AlreadyExistsError:
                return self.look_now()
            self._restrict(MARKER)
            self._sync(MARKER)
        return self.look_now()

    @property
    def sees_another(self) -> bool:
        """Whether the latest look found another marker than expected, or none."""
        return self._expected is not None and self.seen != self._expected

    async def require(self) -> None:
        """Refuse to go on where this is not the grid's blob store; see `require_now`."""
        await asyncio.to_thread(self.require_now)

    def require_now(self) -> None:
        """Refuse to go on where this is not the grid's blob store, from a thread.

        Raises:
            UnavailableError: it is not, or does not answer.
        """
        if self._expected is not None and self.look_now() != self._expected:
            raise self._away(not_the_grids(self._expected, self.seen, self.shown))

    def _before_writing(self) -> None:
        if self._directory is None:
            if self._expected is not None and self.seen not in (None, self._expected):
                raise self._away(not_the_grids(self._expected, self.seen, self.shown))
        elif self._expected is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            self.require_now()

    # --- writing ------------------------------------------------------------------------------------------------

    def new_upload(self) -> Upload:
        """A blob that is written piece by piece."""
        return ObjectUpload(self) if self._directory is None else FileUpload(self, self._directory)

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
        with self._as_unavailable():
            self._before_writing()
            if self._directory is not None:
                self._write(self._directory / key, data)
                self._require_grids(key)
            else:
                obstore.put(self._store, key, data, use_multipart=False)

    def _write(self, path: Path, data: bytes) -> None:
        """Write a file of a directory whole or not at all, and return when it survives a power cut.

        As obstore would, but without its threads, which cost a small blob more than its write.
        """
        staged = f"{path}#{uuid4().int}"  # obstore passes over such names in its listings
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        mode = self.permissions.file
        try:
            fd = os.open(staged, flags, mode)
        except FileNotFoundError:
            self.permissions.make_parents(path)
            fd = os.open(staged, flags, mode)
        try:
            with open(fd, "wb", buffering=0) as file:
                write_all(file, data)
                os.fsync(fd)
            os.rename(staged, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(staged)
            raise
        self._sync_directory(path.parent)

    def put_file_now(self, key: str, path: Path) -> None:
        """Store a file under a key, from a thread, without reading it whole into memory."""
        with self._as_unavailable():
            self._before_writing()
            obstore.put(self._store, key, path, chunk_size=PART, max_concurrency=AT_ONCE)
            self._restrict(key)
            self._flush(key)

    def _restrict(self, key: str) -> None:
        """Have a file that obstore has written read by those only who may read the others."""
        if self._directory is not None:
            self.permissions.restrict(self._directory / key)

    def _flush(self, key: str) -> None:
        """On a local directory, wait until the blob survives a power cut; object stores promise that themselves.

        And make sure that it lies in the grid's blob store.
        """
        if self._directory is None:
            return
        self._sync(key)
        self._require_grids(key)

    def _require_grids(self, key: str) -> None:
        """Make sure that a blob that was written lies in the grid's blob store, where that is a directory.

        The blob is looked at again after the marker: had the share come back between the two, the blob would be below
        it, and not be found.
        """
        if self._directory is not None and self._expected is not None:
            self.require_now()
            (self._directory / key).stat()

    def _sync(self, key: str) -> None:
        """Bring a blob of a directory to its disk."""
        if self._directory is None:
            return
        path = self._directory / key
        _sync_now(path)
        self._sync_directory(path.parent)

    def _sync_directory(self, directory: Path) -> None:
        """Bring a directory to its disk, and for the first time those above it, too: they may be as new."""
        _sync_now(directory)
        if directory not in self._lasting and self._directory is not None:
            above = directory
            while above not in (self._directory, above.parent):
                above = above.parent
                _sync_now(above)
            self._lasting.add(directory)

    # --- reading ------------------------------------------------------------------------------------------------

    async def read(self, blob: BlobSlice) -> bytes:
        """The bytes of a slice, compared with its digest if that is known.

        Raises:
            BlobNotFoundError: they are not there.
            BlobDamagedError: they are not what was stored.
        """
        return await asyncio.to_thread(self.read_now, blob)

    def read_now(self, blob: BlobSlice) -> bytes:
        """The bytes of a slice, from a thread; errors as `read`."""
        if blob.size == 0:
            return b""
        with self._as_unavailable():
            try:
                if self._directory is not None:
                    data = _read(self._directory / blob.key, blob.offset, blob.size)
                else:
                    data = bytes(obstore.get_range(self._store, blob.key, start=blob.offset, length=blob.size))
            except FileNotFoundError:
                raise self._missing(blob.key) from None
            except GenericError:
                # A slice that begins behind the end of its blob is refused with an error like any other.
                self._require_size(blob)
                raise
        if len(data) != blob.size:
            raise BlobDamagedError(f"blob {blob.key} is shorter than expected: {len(data)} of {blob.size} bytes")
        if blob.digest and hashlib.sha256(data).hexdigest() != blob.digest:
            end = blob.offset + blob.size
            raise BlobDamagedError(
                f"blob {blob.key} is damaged: its bytes {blob.offset} to {end} are not those that were recorded "
                "(sha256 differs)"
            )
        return data

    def _missing(self, key: str) -> RaygridError:
        """A blob that is not found: lost, or looked for in the wrong place."""
        try:
            self.require_now()
        except UnavailableError as error:
            return error
        return BlobNotFoundError(f"blob {key} is not in the blob store {self.shown}")

    def _require_size(self, blob: BlobSlice) -> None:
        try:
            size = obstore.head(self._store, blob.key)["size"]
        except FileNotFoundError:
            raise self._missing(blob.key) from None
        if size < blob.offset + blob.size:
            needed = blob.offset + blob.size
            raise BlobDamagedError(f"blob {blob.key} is shorter than expected: {size} of {needed} bytes")

    def fetch_now(self, blob: BlobSlice, path: Path) -> None:
        """Write a slice to a new file, from a thread, and check its digest.

        Raises:
            BlobNotFoundError: it is not there.
            BlobDamagedError: it is not what was stored.
        """
        hasher = hashlib.sha256()
        with path.open("wb") as file:
            for start in range(0, blob.size, CHUNK):
                part = BlobSlice(blob.key, blob.offset + start, min(CHUNK, blob.size - start), "")
                data = self.read_now(part)
                hasher.update(data)
                file.write(data)
        if hasher.hexdigest() != blob.digest:
            raise BlobDamagedError(f"blob {blob.key} does not have the content it should have (sha256 differs)")

    async def sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        """How large those of these blobs are that are there; costs a look at each.

        Raises:
            UnavailableError: the store does not answer.
        """
        with self._as_unavailable():
            if self._directory is not None:
                return await asyncio.to_thread(_sizes_below, self._directory, keys)
            turns = asyncio.Semaphore(LOOKS_TOGETHER)
            sizes: dict[str, int] = {}

            async def look(key: str) -> None:
                async with turns:
                    with contextlib.suppress(FileNotFoundError):
                        sizes[key] = (await obstore.head_async(self._hasty, key))["size"]

            try:
                async with asyncio.TaskGroup() as looks:
                    for key in keys:
                        looks.create_task(look(key))
            except ExceptionGroup as errors:  # the first one has ended the others
                raise errors.exceptions[0] from None
            return sizes

    # --- keeping order ------------------------------------------------------------------------------------------

    async def delete(self, keys: Iterable[str]) -> None:
        """Remove blobs; those that are not there are no error."""
        gone = list(keys)
        if self._directory is None:
            for start in range(0, len(gone), DELETE_TOGETHER):
                with self._as_unavailable():
                    await obstore.delete_async(self._store, gone[start : start + DELETE_TOGETHER])
            return
        for key in gone:
            with self._as_unavailable(), contextlib.suppress(FileNotFoundError):
                await obstore.delete_async(self._store, key)

    async def list_older(self, prefix: str, age: timedelta) -> AsyncIterator[Sequence[str]]:
        """Pages of keys under a prefix that were last written longer than `age` ago."""
        if self._directory is not None and not self._directory.is_dir():
            return  # nothing was ever written
        before = datetime.now(UTC) - age
        async for page in obstore.list(self._store, prefix, chunk_size=500):
            yield [entry["path"] for entry in page if entry["last_modified"] < before]
