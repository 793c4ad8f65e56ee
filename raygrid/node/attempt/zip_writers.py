"""Writes ZIPs: small ones in memory, at a tenth of the cost of `zipfile`, and large ones into a file."""

from __future__ import annotations

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Iterable
from typing import IO, Protocol

from raygrid.node.attempt.outputs import OutputFile

MOST_FILES = 1_000  # well below what needs ZIP64
TINY = 1024  # compressing less than this gains little, and costs a good part of a small job
_LEVEL = 6
# Window and memory of the compressor (see zlib.compressobj): to set up large ones costs more than to compress 2 KB.
_LARGE, _SMALL, _SMALL_SIZE = (-15, 8), (-11, 4), 2_048
_VERSION, _UNIX, _UTF8 = 20, 3, 0x800
_STORED, _DEFLATED = 0, 8
# No time stamp, so that the same output makes the same bytes: the first of January 1980, midnight.
_TIME, _DATE = 0, 0x21
_MODE = 0o644 << 16
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s4B4H3L5H2L")
_END = struct.Struct("<4s4H2LH")

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
        return small_zip(self._parts)


def small_zip(files: Iterable[tuple[str, bytes]]) -> bytes:
    """A ZIP of these files, in this order; less than 4 GB in all."""
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = count = 0
    for name, data in files:
        if name.isascii():
            title, flags = name.encode("ascii"), 0
        else:
            title, flags = name.encode(), _UTF8
        crc, size, kind, body = zlib.crc32(data), len(data), _STORED, data
        if size >= TINY:
            compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, *(_SMALL if size <= _SMALL_SIZE else _LARGE))
            kind, body = _DEFLATED, compressor.compress(data) + compressor.flush()
        packed = len(body)
        parts += (
            _LOCAL.pack(b"PK\3\4", _VERSION, flags, kind, _TIME, _DATE, crc, packed, size, len(title), 0),
            title,
            body,
        )
        directory += (
            _CENTRAL.pack(
                b"PK\1\2", _VERSION, _UNIX, _VERSION, 0, flags, kind, _TIME, _DATE, crc, packed, size,
                len(title), 0, 0, 0, 0, _MODE, offset,
            ),
            title,
        )  # fmt: skip
        offset += _LOCAL.size + len(title) + packed
        count += 1
    listing = b"".join(directory)
    parts += (listing, _END.pack(b"PK\5\6", 0, 0, count, count, len(listing), offset, 0))
    return b"".join(parts)


class FileZip:
    """Writes a ZIP into an open file; `close` completes it."""

    def __init__(self, out: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6)

    def close(self) -> None:
        """Write the directory of the ZIP."""
        self._archive.close()

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
        method = zipfile.ZIP_STORED if len(data) < TINY else zipfile.ZIP_DEFLATED
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
