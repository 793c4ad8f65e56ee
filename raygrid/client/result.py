"""The result of one job: a ZIP with stdout, stderr, a manifest and the files that the pricer wrote."""

from __future__ import annotations

import html
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from raygrid.client.earlier import remove_earlier
from raygrid.errors import DamagedResultError, RaygridError
from raygrid.system.control_characters import escape_control_characters
from raygrid.system.filenames import problem_here

STDOUT, STDERR, MANIFEST = "stdout.txt", "stderr.txt", "manifest.json"
_RESERVED = frozenset({STDOUT, STDERR, MANIFEST})
# What `zipfile` raises for damaged bytes: also for a method, a version, a password or a place that they seem to name.
_UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError, OSError)


class Result:
    """The result of one job.

    If the bytes are not a ZIP, because a proxy delivered plain stdout, they are the `stdout`, and there are no files.

    Attributes:
        job_id: the job.
        data: the bytes of the ZIP.
        reused_from: the earlier job that ran and whose stored result this one took over; the manifest is that job's.
    """

    def __init__(self, job_id: str, data: bytes, reused_from: str | None = None) -> None:
        self.job_id = job_id
        self.data = data
        self.reused_from = reused_from

    def _opened(self) -> zipfile.ZipFile | None:
        # Opened for each read, because few results are read twice, and thousands of open ones would fill the memory.
        try:
            return zipfile.ZipFile(io.BytesIO(self.data))
        except _UNREADABLE:
            return None

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return _files_in(self._opened())

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that the pricer wrote, relative to its job directory."""
        return tuple(name for name in self._names if name not in _RESERVED)

    @property
    def stdout(self) -> str:
        """The pricer's stdout as UTF-8 text; bytes that are not UTF-8 become U+FFFD.

        For another encoding, or for data, use `stdout_bytes`: `result.stdout_bytes.decode("shift_jis")`.
        """
        return self.stdout_bytes.decode(errors="replace")

    @property
    def stdout_bytes(self) -> bytes:
        """The pricer's stdout."""
        return self.data if self._opened() is None else self._bytes_or_empty(STDOUT)

    @property
    def stderr(self) -> str:
        """The pricer's stderr as UTF-8 text; bytes that are not UTF-8 become U+FFFD."""
        return self.stderr_bytes.decode(errors="replace")

    @property
    def stderr_bytes(self) -> bytes:
        """The pricer's stderr."""
        return self._bytes_or_empty(STDERR)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """How the job ran: node, attempt, versions, times, hashes, resources; empty without a ZIP.

        Its `jobId` is the job that ran: `reused_from`, if set.
        """
        text = self._bytes_or_empty(MANIFEST)
        try:
            manifest = json.loads(text) if text else {}
        except (ValueError, RecursionError):
            manifest = None
        if not isinstance(manifest, dict):
            raise self._damaged(MANIFEST, "it is no JSON object")
        return manifest

    def read(self, name: str) -> bytes:
        """Read one file of the result.

        Raises:
            FileNotFoundError: the result has no such file; the message lists its files.
            DamagedResultError: the bytes of the file are damaged.
        """
        archive = self._opened()
        if archive is None or name not in _files_in(archive):
            files = ", ".join(self.files) or "none"
            text = f"the result of job {self.job_id} has no file {name!r}; its files: {files}"
            raise FileNotFoundError(escape_control_characters(text))
        return self._read(archive, name)

    def text(self, name: str) -> str:
        """Read one file of the result as UTF-8 text; bytes that are not UTF-8 become U+FFFD (`read` gives bytes)."""
        return self.read(name).decode(errors="replace")

    def save(self, path: str | Path) -> Path:
        """Write the ZIP to `path`."""
        path = Path(path)
        path.write_bytes(self.data)
        return path

    def extract(self, directory: str | Path) -> Path:
        """Unpack all files below `directory`, which is created if missing.

        The files of an earlier result in it are removed first, except those that were changed since.

        Raises:
            RaygridError: a name in the ZIP leads out of the directory, is also the directory of another, or is not
                possible on Windows and this is Windows; nothing was written.
            DamagedResultError: the bytes of a file are damaged; those before it were written.
        """
        root = Path(directory)
        root.mkdir(parents=True, exist_ok=True)
        archive = self._opened()
        if archive is None:
            (root / STDOUT).write_bytes(self.data)
            return root
        targets = {name: self._inside(root.resolve(), name) for name in self._names}
        self._require_distinct(targets)
        remove_earlier(root)
        for name, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(self._read(archive, name))
        return root

    def _read(self, archive: zipfile.ZipFile, name: str) -> bytes:
        try:
            return archive.read(name)
        except _UNREADABLE as error:
            raise self._damaged(name, str(error)) from error

    def _bytes_or_empty(self, name: str) -> bytes:
        """The content of a file; empty if it is missing."""
        archive = self._opened()
        return b"" if archive is None or name not in archive.NameToInfo else self._read(archive, name)

    def _damaged(self, name: str, why: str) -> DamagedResultError:
        return DamagedResultError(
            f"the result of job {self.job_id} is damaged: its file {name!r} cannot be read ({why}); fetch it again"
        )

    def _require_distinct(self, targets: Mapping[str, Path]) -> None:
        """Refuse names of which one is the directory of another; nodes do not write such a ZIP."""
        parents = {parent for target in targets.values() for parent in target.parents}
        for name, target in targets.items():
            if target in parents:
                raise RaygridError(
                    f"the result of job {self.job_id} contains {name!r} as a file and as a directory; nothing was "
                    "extracted, read the files with Result.read()"
                )

    def _inside(self, root: Path, name: str) -> Path:
        path = PurePosixPath(name)
        if (problem := problem_here(name)) is not None:
            raise RaygridError(
                f"the result of job {self.job_id} contains the path {name!r}, which {problem}; nothing was extracted, "
                "read the file with Result.read()"
            )
        # `resolve` also follows links that are in the directory already, and handles Windows drives.
        target = (root / path).resolve()
        if path.is_absolute() or ".." in path.parts or not target.is_relative_to(root) or target == root:
            raise RaygridError(
                f"the result of job {self.job_id} contains the path {name!r}, which could lead out of {root}; nothing "
                "was extracted, read the file with Result.read()"
            )
        return target

    def __repr__(self) -> str:
        files = f", files={list(self.files)}" if len(self.files) <= 5 else f", {len(self.files)} files"
        return f"<Result of job {self.job_id}: {len(self.data):,} bytes{files}>"

    def _repr_html_(self) -> str:
        files = "".join(f"<li>{html.escape(escape_control_characters(name))}</li>" for name in self.files)
        stdout = html.escape(escape_control_characters(self.stdout[:2000]))
        return f"<b>Result of job {html.escape(self.job_id)}</b><pre>{stdout}</pre><ul>{files}</ul>"


def _files_in(archive: zipfile.ZipFile | None) -> tuple[str, ...]:
    return tuple(name for name in archive.namelist() if not name.endswith("/")) if archive is not None else ()
