"""Blobs in an object store (S3, Google Cloud, Azure) through obstore, with limits so that no call waits for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from raygrid.blobs.keys import MARKER, new_upload_key
from raygrid.blobs.port import Checks, Worker
from raygrid.errors import SettingsError

HELD = 4 * 1024**2  # a blob up to this size goes to an object store in one request
PART = 8 * 1024**2  # S3 takes no part of less than 5 MB but the last
AT_ONCE = 2  # parts of one blob on their way at the same time
DELETE_TOGETHER = 500
LOOKS_TOGETHER = 32
_PAGE = 500

# Options of the HTTP client rather than of the object store; obstore wants them apart.
CLIENT_OPTIONS = frozenset(
    {
        "allow_http",
        "allow_invalid_certificates",
        "connect_timeout",
        "default_content_type",
        "default_headers",
        "http1_only",
        "http2_keep_alive_interval",
        "http2_keep_alive_timeout",
        "http2_keep_alive_while_idle",
        "http2_only",
        "pool_idle_timeout",
        "pool_max_idle_per_host",
        "proxy_ca_certificate",
        "proxy_excludes",
        "proxy_url",
        "randomize_addresses",
        "read_timeout",
        "root_certificate",
        "timeout",
        "user_agent",
    }
)
LIMITS = {"connect_timeout": "3s", "read_timeout": "20s", "timeout": "60s"}
LOOK_LIMITS = {"connect_timeout": "3s", "read_timeout": "5s", "timeout": "5s"}


class ObjectStore:
    """An object store, as a `BlobPlace`.

    Args:
        url: such as `s3://bucket/prefix`.
        options: of the store (`endpoint`, `region`) and of its HTTP client (`allow_http`, `timeout`).
        retry_s: how long a call is tried again before it fails.

    Raises:
        SettingsError: the URL or an option is wrong.
    """

    is_directory = False

    def __init__(self, url: str, options: Mapping[str, Any], retry_s: float) -> None:
        self.shown = shown(url)
        self._working, self._looking = open_remote(url, options, retry_s)

    def make(self) -> None:
        """See `BlobPlace.make`; a bucket is not made."""

    def exists(self) -> bool:
        """See `BlobPlace.exists`."""
        return True

    def marker(self) -> bytes:
        """See `BlobPlace.marker`."""
        return bytes(obstore.get(self._looking, MARKER).bytes())

    def create_marker(self, data: bytes) -> bool:
        """See `BlobPlace.create_marker`."""
        try:
            obstore.put(self._working, MARKER, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def put(self, key: str, data: bytes) -> None:
        """See `BlobPlace.put`."""
        obstore.put(self._working, key, data, use_multipart=False)

    def put_file(self, key: str, path: Path) -> None:
        """See `BlobPlace.put_file`."""
        obstore.put(self._working, key, path, chunk_size=PART, max_concurrency=AT_ONCE)

    def get(self, key: str, offset: int, size: int) -> bytes:
        """See `BlobPlace.get`; an offset behind the end of the blob is a `GenericError` of obstore."""
        return bytes(obstore.get_range(self._working, key, start=offset, length=size))

    def size(self, key: str) -> int:
        """See `BlobPlace.size`."""
        return int(obstore.head(self._working, key)["size"])

    def sink(self, checks: Checks) -> ObjectSink:
        """See `BlobPlace.sink`."""
        return ObjectSink(self._working, checks)

    async def sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        """See `BlobPlace.sizes`."""
        turns = asyncio.Semaphore(LOOKS_TOGETHER)
        sizes: dict[str, int] = {}

        async def look(key: str) -> None:
            async with turns:
                with contextlib.suppress(FileNotFoundError):
                    sizes[key] = (await obstore.head_async(self._looking, key))["size"]

        try:
            async with asyncio.TaskGroup() as looks:
                for key in keys:
                    looks.create_task(look(key))
        except ExceptionGroup as errors:  # the first one has ended the others
            raise errors.exceptions[0] from None
        return sizes

    async def delete(self, keys: Sequence[str]) -> None:
        """See `BlobPlace.delete`."""
        for start in range(0, len(keys), DELETE_TOGETHER):
            await obstore.delete_async(self._working, keys[start : start + DELETE_TOGETHER])

    async def older(self, prefix: str, before: datetime) -> AsyncIterator[Sequence[str]]:
        """See `BlobPlace.older`."""
        async for page in obstore.list(self._working, prefix, chunk_size=_PAGE):
            yield [entry["path"] for entry in page if entry["last_modified"] < before]


class ObjectSink:
    """A long upload into an object store: obstore sends it in parts."""

    room = HELD

    def __init__(self, store: Any, checks: Checks) -> None:
        self._store = store
        self._checks = checks
        self._temporary = new_upload_key()
        self._writer: Any = None

    async def take(self, data: bytes, digest: Callable[[bytes], object], worker: Worker) -> None:
        """See `Sink.take`."""
        worker.begin(digest, data)
        if self._writer is None:
            await asyncio.to_thread(self._checks.before_writing)
            self._writer = obstore.open_writer_async(
                self._store, self._temporary, buffer_size=PART, max_concurrency=AT_ONCE
            )
        await self._writer.write(data)

    async def settle(self, key: str, worker: Worker) -> None:
        """See `Sink.settle`."""
        await self._writer.close()
        self._writer = None
        await obstore.rename_async(self._store, self._temporary, key)

    async def discard(self, worker: Worker) -> None:
        """See `Sink.discard`."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with contextlib.suppress(OSError, BaseError):
            await writer.close()
        await obstore.delete_async(self._store, [self._temporary])


def open_remote(url: str, options: Mapping[str, Any], retry_s: float) -> tuple[Any, Any]:
    """An object store by URL, twice: to work with, and to look whether it is there, which gives up soon.

    Args:
        url: such as `s3://bucket/prefix`.
        options: of the store (`endpoint`, `region`) and of its HTTP client (`allow_http`, `timeout`).
        retry_s: how long a call is tried again before it fails.

    Raises:
        SettingsError: the URL or an option is wrong.
    """
    client = {name: value for name, value in options.items() if name in CLIENT_OPTIONS}
    config: Any = {name: value for name, value in options.items() if name not in CLIENT_OPTIONS}
    backoff = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2}
    patient: Any = {"max_retries": 10, "retry_timeout": timedelta(seconds=retry_s), "backoff": backoff}
    hasty: Any = {"max_retries": 1, "retry_timeout": timedelta(seconds=min(retry_s, 2.0)), "backoff": backoff}
    working: Any = {**LIMITS, **client}
    looking: Any = {**LOOK_LIMITS, **client}
    try:
        return (
            from_url(url, client_options=working, retry_config=patient, **config),
            from_url(url, client_options=looking, retry_config=hasty, **config),
        )
    except Exception as error:
        # Not chained: the error quotes the URL as it is.
        why = first_line(error).replace(url, shown(url))
        raise SettingsError(
            f"storage.blobs: cannot use {shown(url)!r} with storage.blob_options {sorted(options) or 'unset'}: {why}"
        ) from None


def shown(url: str) -> str:
    """A URL for people: without a user, a password or a query, which may hold secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else url


def first_line(error: BaseException) -> str:
    """The message of an error, without the pages that obstore appends."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
