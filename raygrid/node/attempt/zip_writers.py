"""Writes ZIPs: small ones in memory, at a tenth of the cost of `zipfile`, and large ones into a file."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from types import TracebackType
from typing import IO, Protocol

from raygrid.node.attempt import small_zip
from raygrid.node.attempt.outputs import OutputFile

_CHUNK = 1024**2
_SAMPLE = 64 * 1024
_EMPTY = hashlib.sha256(b"").hexdigest()  # nearly all captured output is empty


class ZipWriter(Protocol):
    """Adds the parts of a ZIP in their order."""

    def add(self, name: str, file: OutputFile) -> tuple[str, int]:
        """Add a file; return the sha256 and the size of what was added, which is less if the file shrank.

        Raises:
            BadOutputError: the file was replaced.
            OSError: it cannot be read, or the disk is full or fails.
        """

    def add_bytes(self, name: str, data: bytes) -> None:
        """Add bytes."""


class InMemoryZip:
    """Collects small files and makes their ZIP at the end."""

    def __init__(self) -> None:
        self._parts: list[tuple[str, bytes]] = []

    def add(self, name: str, file: OutputFile) -> tuple[str, int]:
        """See `ZipWriter`."""
        data = _content(file)
        self._parts.append((name, data))
        return hashlib.sha256(data).hexdigest() if data else _EMPTY, len(data)

    def add_bytes(self, name: str, data: bytes) -> None:
        """See `ZipWriter`."""
        self._parts.append((name, data))

    def content(self) -> bytes:
        """The ZIP."""
        return small_zip.make(self._parts)


class FileZip:
    """Writes a ZIP into an open file; use it as a context."""

    def __init__(self, out: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6)

    def __enter__(self) -> FileZip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.__exit__(kind, error, trace)

    def add(self, name: str, file: OutputFile) -> tuple[str, int]:
        """See `ZipWriter`."""
        if file.size <= _CHUNK:
            data = _content(file)
            self.add_bytes(name, data)
            return hashlib.sha256(data).hexdigest(), len(data)
        info = zipfile.ZipInfo(name)
        info.external_attr = 0o644 << 16
        info.file_size = file.size  # lets zipfile choose ZIP64 in time
        with file.open() as source:
            info.compress_type = zipfile.ZIP_DEFLATED if _is_compressible(source) else zipfile.ZIP_STORED
            return self._copy(source, info, file.size)

    def add_bytes(self, name: str, data: bytes) -> None:
        """See `ZipWriter`."""
        info = zipfile.ZipInfo(name)  # without time stamp, so that equal output makes equal bytes
        info.external_attr = 0o644 << 16
        method = zipfile.ZIP_STORED if len(data) < small_zip.TINY else zipfile.ZIP_DEFLATED
        self._archive.writestr(info, data, compress_type=method)

    def _copy(self, source: IO[bytes], info: zipfile.ZipInfo, expected: int) -> tuple[str, int]:
        hasher, size = hashlib.sha256(), 0
        with self._archive.open(info, "w", force_zip64=expected > 2**31) as target:
            while chunk := source.read(min(_CHUNK, expected - size)):
                hasher.update(chunk)
                size += len(chunk)
                target.write(chunk)
        return hasher.hexdigest(), size


def _content(file: OutputFile) -> bytes:
    """The bytes of a small file, at most its recorded size; an empty file is not opened."""
    if not file.size:
        return b""
    with file.open() as source:
        return source.read(file.size)


def _is_compressible(source: IO[bytes]) -> bool:
    """Whether the beginning of a file shrinks by compression; otherwise compressing all of it would be a waste."""
    sample = source.read(_SAMPLE)
    source.seek(0)
    return len(zlib.compress(sample, 1)) < 0.9 * len(sample)
