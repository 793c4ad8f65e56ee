"""The files that a pricer leaves in its job directory: which of them belong to the result, and how they are read.

A directory is searched by descriptor, one path component at a time, so that no link of the pricer is followed. A hard
link to a file elsewhere, such as one of the grid or of another job, is never read: all names of a file must be in the
job directory.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from typing import IO, NamedTuple

from raygrid.node.attempt.safe_paths import BadOutputError, FileIdentity, descend, kind, read_file
from raygrid.system.filenames import problem_of_name
from raygrid.system.proc import descriptor_path

MOST_FILES = 100_000
MOST_DEPTH = 500  # directories in each other
MOST_PATH = 4_000  # characters of a name in the result


class FileMark(NamedTuple):
    """Distinguishes an unchanged file from a changed one: its size and modification time."""

    size: int
    modified_ns: int

    @staticmethod
    def of(status: os.stat_result) -> FileMark:
        """The mark of a file."""
        return FileMark(status.st_size, status.st_mtime_ns)


class OutputFile(NamedTuple):
    """A file that a pricer wrote, as it was after the pricer had ended.

    Attributes:
        name: its path in the result.
        path: its path relative to the directory that `dir_fd` has open; not used if there is a `descriptor`.
        size: in bytes; no more is read, even if the file grows.
        descriptor: an open descriptor of the file itself; -1 if the node has none.
        identity: which file had the name; the file that is read must be the same. Not used with a `descriptor`.
    """

    name: str
    dir_fd: int
    path: str
    size: int
    modified_ns: int = 0
    descriptor: int = -1
    identity: FileIdentity | None = None

    @property
    def mark(self) -> FileMark:
        """Its mark, by which an unchanged file is recognised."""
        return FileMark(self.size, self.modified_ns)

    def open(self) -> IO[bytes]:
        """Open it for reading.

        Raises:
            BadOutputError: it was replaced, or got another name.
            OSError: it cannot be read.
        """
        if self.descriptor >= 0:
            # A new open file starts at the beginning, and flags that the pricer set on its descriptor do not apply.
            return open(descriptor_path(self.descriptor), "rb")
        return read_file(self.path, self.dir_fd, self.identity)


def find_outputs(top: int, input_name: str | None, input_mark: FileMark | None) -> list[OutputFile]:
    """All regular files in a job directory, in name order, without shared data and an unchanged input.

    `top` is a descriptor of the directory, `input_mark` the mark of the input before the run.

    Raises:
        BadOutputError: there are other files than regular ones and directories, or too many; or a file has a name
            outside of the directory.
        OSError: a directory cannot be read.
    """
    found = _walk(top)
    files = sorted((f for f in found if f.name != input_name or f.mark != input_mark), key=lambda file: file.name)
    _require_names_inside(files, found)
    _require_one_name_each(files)
    return files


def _walk(top: int) -> list[OutputFile]:
    found: list[OutputFile] = []
    waiting, directories = [""], 0
    while waiting:
        prefix = waiting.pop()
        if prefix.count("/") > MOST_DEPTH or len(prefix) > MOST_PATH:
            raise BadOutputError(f"the pricer left directories that are too deep: more than {MOST_DEPTH} levels")
        directories += 1
        directory = descend(top, prefix[:-1])
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    if (inner := _sort_entry(entry, prefix, top, found)) is not None:
                        waiting.append(inner)
                    if len(found) + directories + len(waiting) > MOST_FILES:
                        raise BadOutputError(f"the pricer left more than {MOST_FILES} files; pack them into one")
        finally:
            os.close(directory)
    return found


def _sort_entry(entry: os.DirEntry[str], prefix: str, top: int, found: list[OutputFile]) -> str | None:
    """Add a file to those found; return the prefix of a directory that must be searched."""
    name = prefix + entry.name
    if (problem := problem_of_name(name)) is not None:
        raise BadOutputError(f"the pricer left a file whose name {problem}: {name!r}")
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        identity = FileIdentity.of(status)
        found.append(OutputFile(name, top, name, status.st_size, status.st_mtime_ns, identity=identity))
        return None
    if stat.S_ISDIR(status.st_mode):
        return None if name == "data" else f"{name}/"
    raise BadOutputError(
        f"the pricer left {kind(status.st_mode)}, {name!r}; only regular files can be part of a result"
    )


def _require_names_inside(files: list[OutputFile], found: list[OutputFile]) -> None:
    """Refuse a file that has more names (hard links) than were found in the job directory."""
    linked = [file for file in files if file.identity is not None and file.identity.links > 1]
    if not linked:
        return
    names = Counter(file.identity for file in found)
    for file in linked:
        if file.identity is not None and names[file.identity] != file.identity.links:
            raise BadOutputError(
                f"the pricer left {file.name!r}, a hard link to a file outside of the job directory; copy that file "
                "instead of linking it, or remove the link before the pricer ends"
            )


def _require_one_name_each(files: list[OutputFile]) -> None:
    """Refuse files that would have the same name in the ZIP, where a backslash is written as `%5C`."""
    odd = {file.name.replace("\\", "%5C"): file.name for file in files if "\\" in file.name}
    for file in files if odd else ():
        if (other := odd.get(file.name, file.name)) != file.name:
            raise BadOutputError(f"the pricer left {other!r} and {file.name!r}, which have the same name in a ZIP")
