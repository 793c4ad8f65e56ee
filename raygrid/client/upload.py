"""Inputs to upload: paths, bytes or file objects, as bodies that can be sent again."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeAlias

from raygrid.errors import InvalidRequestError
from raygrid.system.filenames import problem_of_input

CHUNK = 256 * 1024
_EMPTY = "{} is empty, and an input must not be empty; fill it or leave it out"

Input: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""An input of a job. A `str` is always a path, never content."""


@dataclass(frozen=True, slots=True)
class InputUpload:
    """An input with its file name and length.

    A path is opened only while it is read, so a batch of thousands keeps no files open. A file object that can seek is
    read from its current position; one that cannot, and a pipe, is read into memory at once.
    """

    filename: str
    length: int
    source: Path | bytes | BinaryIO = field(repr=False)
    start: int = 0
    content_type: str = "application/octet-stream"

    @classmethod
    def of(cls, what: Input, filename: str | None = None) -> InputUpload:
        """Prepare an input for sending.

        Args:
            what: path, bytes, or file object opened in binary mode.
            filename: name of the input in the job directory; by default that of the file, or `input`.

        Raises:
            InvalidRequestError: the path is a directory or device, the file is empty, or its name is not allowed.
            FileNotFoundError: there is no such file.
            TypeError: `what` is of another type, or a file opened in text mode.
        """
        if isinstance(what, (bytes, bytearray, memoryview)):
            content = bytes(what)
            return cls(_checked(filename or "input"), len(content), content)
        if isinstance(what, (str, os.PathLike)):
            path = Path(what)
            if path.is_dir():
                raise InvalidRequestError(f"{path} is a directory; submit the files in it one by one, or a ZIP of it")
            found = path.stat()
            if stat.S_ISFIFO(found.st_mode):
                return cls._of_pipe(path, filename)
            if not stat.S_ISREG(found.st_mode):
                raise InvalidRequestError(f"{path} is neither a file nor a pipe; write its content into a file")
            if found.st_size == 0:
                raise InvalidRequestError(_EMPTY.format(path))
            return cls(_checked(filename or _name_of(path)), found.st_size, path)
        if not hasattr(what, "read") or hasattr(what, "encoding"):
            raise TypeError(f"an input is a path, bytes, or a file opened in binary mode, not {what!r}")
        name = getattr(what, "name", None)
        filename = _checked(filename or (_name_of(Path(name)) if isinstance(name, str) else "input"))
        if not what.seekable():
            return cls.of(what.read(), filename)
        start = what.tell()
        length = what.seek(0, os.SEEK_END) - start
        what.seek(start)
        return cls(filename, max(0, length), what, start)

    @classmethod
    def _of_pipe(cls, path: Path, filename: str | None) -> InputUpload:
        """Read a pipe to its end: its length is unknown before, and it cannot be read again for a retry."""
        content = path.read_bytes()
        if not content:
            raise InvalidRequestError(_EMPTY.format(path))
        # A shell's path of the pipe `<(…)`, such as /dev/fd/63, does not name the input.
        is_numbered = (path.parent.name == "fd" and path.name.isdecimal()) or path == Path("/dev/stdin")
        return cls(_checked(filename or ("input" if is_numbered else _name_of(path))), len(content), content)

    def chunks(self) -> Iterator[bytes]:
        """Read the input from its beginning.

        Raises:
            InvalidRequestError: the length of the file has changed since the submit.
        """
        if isinstance(self.source, bytes):
            yield self.source
        elif isinstance(self.source, Path):
            with self.source.open("rb") as file:
                yield from self._read(file)
        else:
            self.source.seek(self.start)
            yield from self._read(self.source)

    def _read(self, file: BinaryIO) -> Iterator[bytes]:
        sent = 0
        while chunk := file.read(CHUNK):
            sent += len(chunk)
            if sent > self.length:
                break
            yield chunk
        if sent != self.length:
            raise InvalidRequestError(f"{self.filename} changed while it was being sent; submit it again")


def _name_of(path: Path) -> str:
    """The name of a file, decoded as UTF-8 if it is valid UTF-8, in every locale."""
    try:
        return os.fsencode(path.name).decode("utf-8")
    except UnicodeError:
        return path.name


def _checked(filename: str) -> str:
    if (problem := problem_of_input(filename)) is not None:
        raise InvalidRequestError(
            f"an input cannot be named {filename!r}: the name {problem}; rename the file, or submit it alone with "
            "another name as filename="
        )
    return filename
