"""Two ways to write a ZIP: small ones in memory, at a tenth of the cost of `zipfile`, and large ones into a file."""

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
    """Takes the parts of a ZIP in their order."""

    def add(self, name: str, file: OutputFile) -> tuple[str, int]:
        """Add a file; return the sha256 and the size of what was added: less than was seen if the file shrank.

        Raises:
            BadOutputError: something else took the place of the file.
            OSError: it cannot be read, or the disk does not take it.
        """

    def add_bytes(self, name: str, data: bytes) -> None:
        """Add bytes.

        Raises:
            OSError: the disk does not take them.
        """


class InMemoryZip:
    """Collects small files, and makes their ZIP in one go."""

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
        info = zipfile.ZipInfo(name)  # no time stamp: the same output makes the same bytes
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
    """The bytes of a small file, no more than were seen; a file that was empty is not opened."""
    if not file.size:
        return b""
    with file.open() as source:
        return source.read(file.size)


def _is_compressible(source: IO[bytes]) -> bool:
    """Whether the beginning of a file shrinks; compressing a file that does not takes long and gains nothing."""
    sample = source.read(_SAMPLE)
    source.seek(0)
    return len(zlib.compress(sample, 1)) < 0.9 * len(sample)
