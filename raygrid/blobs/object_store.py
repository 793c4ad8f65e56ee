"""Blobs in an object store (S3, Google Cloud, Azure) through obstore, with time limits for every call.

obstore tries most failed requests again, but not those whose connection the store closed before it answered. Those are
made again here, where a repetition does no harm: storing, reading, asking for sizes and deleting. The marker is read
once, because that check must fail soon. The parts of a long upload are not sent again; the caller repeats the upload.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, GenericError
from obstore.store import from_url

from raygrid.blobs.keys import MARKER, new_upload_key
from raygrid.blobs.port import AT_ONCE, PAGE, PART, Checks
from raygrid.blobs.upload_thread import UploadThread
from raygrid.errors import SettingsError

HELD = 4 * 1024**2  # a blob up to this size is sent in one request
DELETE_TOGETHER = 500
LOOKS_TOGETHER = 32
LOOK_AGAIN_S = 2.0  # how long a look, which must fail soon, is made again
FIRST_WAIT_S = 0.1  # before a request is made again
SENDING = "error sending request"  # what obstore's error says if a connection broke
_RETRIES = re.compile(r" after (\d+) retries, max_retries: (\d+)")

_Answer = TypeVar("_Answer")

# Options of the HTTP client; obstore takes them apart from those of the object store.
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
        client = {name: value for name, value in options.items() if name in CLIENT_OPTIONS}
        config: Any = {name: value for name, value in options.items() if name not in CLIENT_OPTIONS}
        backoff = {"init_backoff": timedelta(seconds=FIRST_WAIT_S), "max_backoff": timedelta(seconds=5), "base": 2}
        patient: Any = {"max_retries": 10, "retry_timeout": timedelta(seconds=retry_s), "backoff": backoff}
        hasty: Any = {"max_retries": 1, "retry_timeout": timedelta(seconds=min(retry_s, 2.0)), "backoff": backoff}
        working: Any = {**LIMITS, **client}
        looking: Any = {**LOOK_LIMITS, **client}
        self._retry_s = retry_s
        try:
            self._working = from_url(url, client_options=working, retry_config=patient, **config)
            # For checks whether the store is available, which must fail soon.
            self._looking = from_url(url, client_options=looking, retry_config=hasty, **config)
        except Exception as error:
            # Not chained, because the error quotes the URL with its secrets.
            why = first_line(error).replace(url, self.shown)
            names = sorted(options) or "unset"
            raise SettingsError(
                f"storage.blobs: cannot use {self.shown!r} with storage.blob_options {names}: {why}"
            ) from None

    def make(self) -> None:
        """See `BlobPlace.make`; buckets are not made."""

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
        self._sent(lambda: obstore.put(self._working, key, data, use_multipart=False))

    def put_file(self, key: str, path: Path) -> None:
        """See `BlobPlace.put_file`."""
        self._sent(lambda: obstore.put(self._working, key, path, chunk_size=PART, max_concurrency=AT_ONCE))

    def get(self, key: str, offset: int, size: int) -> bytes:
        """See `BlobPlace.get`; an offset after the end of the blob raises obstore's `GenericError`."""
        return bytes(self._sent(lambda: obstore.get_range(self._working, key, start=offset, length=size)))

    def size(self, key: str) -> int:
        """See `BlobPlace.size`."""
        return int(self._sent(lambda: obstore.head(self._working, key))["size"])

    def sink(self, checks: Checks) -> ObjectSink:
        """See `BlobPlace.sink`."""
        return ObjectSink(self._working, checks, self._retry_s)

    async def sizes(self, keys: Collection[str]) -> Mapping[str, int]:
        """See `BlobPlace.sizes`."""
        turns = asyncio.Semaphore(LOOKS_TOGETHER)
        sizes: dict[str, int] = {}

        async def look(key: str) -> None:
            async with turns:
                with contextlib.suppress(FileNotFoundError):
                    head = await sent_async(partial(obstore.head_async, self._looking, key), LOOK_AGAIN_S)
                    sizes[key] = head["size"]

        try:
            async with asyncio.TaskGroup() as looks:
                for key in keys:
                    looks.create_task(look(key))
        except ExceptionGroup as errors:  # the first error has cancelled the other tasks
            raise errors.exceptions[0] from None
        return sizes

    async def delete(self, keys: Sequence[str]) -> None:
        """See `BlobPlace.delete`."""
        for start in range(0, len(keys), DELETE_TOGETHER):
            some = keys[start : start + DELETE_TOGETHER]
            await sent_async(partial(obstore.delete_async, self._working, some), self._retry_s)

    async def older(self, prefix: str, before: datetime) -> AsyncIterator[Sequence[str]]:
        """See `BlobPlace.older`."""
        async for page in obstore.list(self._working, prefix, chunk_size=PAGE):
            yield [entry["path"] for entry in page if entry["last_modified"] < before]

    def _sent(self, request: Callable[[], _Answer]) -> _Answer:
        """Make a request that may be repeated, again if its connection broke; for `retry_s` seconds.

        obstore tries again by itself, but not if the store closed the connection before the request was answered.
        """
        until = time.monotonic() + self._retry_s
        while True:
            try:
                return request()
            except GenericError as error:
                if not _may_try_again(error, until):
                    raise
            time.sleep(FIRST_WAIT_S)


class ObjectSink:
    """A long upload into an object store; obstore sends it in parts."""

    room = HELD

    def __init__(self, store: Any, checks: Checks, retry_s: float) -> None:
        self._store = store
        self._retry_s = retry_s
        self._checks = checks
        self._temporary = new_upload_key()
        self._writer: Any = None

    async def take(self, data: bytes, digest: Callable[[bytes], object], thread: UploadThread) -> None:
        """See `Sink.take`."""
        thread.begin(digest, data)
        if self._writer is None:
            await asyncio.to_thread(self._checks.before_writing)
            self._writer = obstore.open_writer_async(
                self._store, self._temporary, buffer_size=PART, max_concurrency=AT_ONCE
            )
        await self._writer.write(data)

    async def settle(self, key: str, thread: UploadThread) -> None:
        """See `Sink.settle`."""
        await self._writer.close()
        self._writer = None
        await obstore.rename_async(self._store, self._temporary, key)

    async def discard(self, thread: UploadThread) -> None:
        """See `Sink.discard`."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with contextlib.suppress(OSError, BaseError):
            await writer.close()
        await sent_async(partial(obstore.delete_async, self._store, [self._temporary]), self._retry_s)


async def sent_async(request: Callable[[], Awaitable[_Answer]], retry_s: float) -> _Answer:
    """As `ObjectStore._sent`, without blocking."""
    until = time.monotonic() + retry_s
    while True:
        try:
            return await request()
        except GenericError as error:
            if not _may_try_again(error, until):
                raise
        await asyncio.sleep(FIRST_WAIT_S)


def _may_try_again(error: GenericError, until: float) -> bool:
    return was_not_sent(error) and time.monotonic() + FIRST_WAIT_S < until


def was_not_sent(error: GenericError) -> bool:
    """Whether the connection broke before a request was answered, and obstore has not tried as often as it may."""
    line = first_line(error)
    retries = _RETRIES.search(line)
    return SENDING in line and (retries is None or int(retries[1]) < int(retries[2]))


def shown(url: str) -> str:
    """A URL for messages, without user, password and query, which may be secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.scheme else url


def first_line(error: BaseException) -> str:
    """The first line of an error's message; obstore appends long details."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
