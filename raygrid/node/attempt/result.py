"""The result of an attempt as a ZIP: what the pricer printed, a manifest, and the files that it wrote."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from uuid_utils import uuid4

from raygrid.blobs.chunks import CHUNK, digests, pieces_of
from raygrid.models import AttemptReport, JobSpec
from raygrid.node.attempt import small_zip
from raygrid.node.attempt.spare_directories import JobDirectory
from raygrid.node.attempt.usage import Usage
from raygrid.node.attempt.workspace import OutputFile

RESERVED = frozenset({"stdout.txt", "stderr.txt", "manifest.json"})
ASIDE = "pricer_files/"
IN_MEMORY = 4 * 1024**2
_ENCODE = json.JSONEncoder(separators=(",\n ", ": ")).encode
_CHUNK = 1024**2
_SAMPLE = 64 * 1024


@dataclass(frozen=True, slots=True)
class ResultZip:
    """A finished ZIP: its bytes where it is small, else a file; `chunks` are digests of a large one's chunks."""

    size: int
    digest: str
    data: bytes | None
    path: Path | None
    chunks: bytes | None = None


def name_in_zip(name: str) -> str:
    """Where a pricer's file stands in the ZIP; one that is named like a part of ours moves aside.

    A backslash is part of a name here, but separates directories where a ZIP is unpacked on Windows, and could lead out
    of the directory there. It is written as `%5C`, and the manifest has the name as it was.
    """
    if "\\" in name:
        name = name.replace("\\", "%5C")
    return f"{ASIDE}{name}" if name in RESERVED or name.startswith(ASIDE) else name


def _listed(file: OutputFile, name: str, size: int, digest: str) -> dict[str, Any]:
    """A file as the manifest has it."""
    written = {"written_as": file.name} if "\\" in file.name else {}
    return {"name": name, "size": size, "digest": digest, **written}


def build(
    directory: JobDirectory,
    spec: JobSpec,
    node_id: str,
    report: AttemptReport,
    usage: Usage,
    captures: Sequence[OutputFile],
    files: Sequence[OutputFile],
) -> ResultZip:
    """Make the ZIP of an attempt; large ones are written to disk beside the job directory.

    Raises:
        BadOutputError: something else took the place of a file meanwhile.
        OSError: a file cannot be read, or the disk does not take the ZIP.
    """
    total = sum([file.size for file in captures]) + sum([file.size for file in files])
    if total <= IN_MEMORY and len(files) < small_zip.MOST_FILES:
        data = _in_memory(captures, spec, node_id, report, usage, files)
        if len(data) <= CHUNK:  # nearly all are, and this is on the way of every short job
            return ResultZip(len(data), hashlib.sha256(data).hexdigest(), data, None)
        digest, chunks = digests(pieces_of(data))
        return ResultZip(len(data), digest, data, None, chunks)
    path = directory.path.parent / f"{directory.name}@{uuid4().hex}"  # where no pricer can have put anything
    made = os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory.within)
    try:
        with os.fdopen(made, "w+b") as out:
            _write(out, captures, spec, node_id, report, usage, files)
            out.seek(0)
            digest, chunks = digests(iter(partial(out.read, CHUNK), b""))
            return ResultZip(os.fstat(made).st_size, digest, None, path, chunks)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path.name, dir_fd=directory.within)
        raise


def _in_memory(
    captures: Sequence[OutputFile],
    spec: JobSpec,
    node_id: str,
    report: AttemptReport,
    usage: Usage,
    files: Sequence[OutputFile],
) -> bytes:
    parts = [(file.name, _content(file)) for file in captures]
    listed = []
    for file in files:
        name, data = name_in_zip(file.name), _content(file)
        parts.append((name, data))
        listed.append(_listed(file, name, len(data), hashlib.sha256(data).hexdigest()))
    parts.append(("manifest.json", _lines(_manifest(spec, node_id, report, usage, listed))))
    return small_zip.make(parts)


def _content(file: OutputFile) -> bytes:
    """What is in a small file now, as far as it was seen; it is not opened where it was empty."""
    if not file.size:
        return b""
    with file.open() as source:
        return source.read(file.size)


def _write(
    out: IO[bytes],
    captures: Sequence[OutputFile],
    spec: JobSpec,
    node_id: str,
    report: AttemptReport,
    usage: Usage,
    files: Sequence[OutputFile],
) -> None:
    listed = []
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for file in captures:
            _add(archive, file.name, file)
        for file in files:
            name = name_in_zip(file.name)
            digest, size = _add(archive, name, file)
            listed.append(_listed(file, name, size, digest))
        _add_bytes(archive, "manifest.json", _lines(_manifest(spec, node_id, report, usage, listed)))


def _lines(manifest: dict[str, Any]) -> bytes:
    """A field a line, for people; `indent` would do that, too, at many times the cost."""
    return f"{_ENCODE(manifest)}\n".encode()


def _add_bytes(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # no time stamp: the same output makes the same bytes
    info.external_attr = 0o644 << 16
    kind = zipfile.ZIP_STORED if len(data) < small_zip.TINY else zipfile.ZIP_DEFLATED
    archive.writestr(info, data, compress_type=kind)


def _add(archive: zipfile.ZipFile, name: str, file: OutputFile) -> tuple[str, int]:
    """Add a file; gives sha256 and size of what was added, which is less than was seen if it shrank meanwhile."""
    if file.size <= _CHUNK:
        data = _content(file)
        _add_bytes(archive, name, data)
        return hashlib.sha256(data).hexdigest(), len(data)
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16
    info.file_size = file.size  # lets zipfile choose ZIP64 in time
    with file.open() as source:
        info.compress_type = zipfile.ZIP_DEFLATED if _is_compressible(source) else zipfile.ZIP_STORED
        return _copy(source, archive, info, file.size)


def _is_compressible(source: IO[bytes]) -> bool:
    """Whether the beginning of a file shrinks; what does not costs much time and gains nothing."""
    sample = source.read(_SAMPLE)
    source.seek(0)
    return len(zlib.compress(sample, 1)) < 0.9 * len(sample)


def _copy(source: IO[bytes], archive: zipfile.ZipFile, info: zipfile.ZipInfo, expected: int) -> tuple[str, int]:
    hasher, size = hashlib.sha256(), 0
    with archive.open(info, "w", force_zip64=expected > 2**31) as target:
        while chunk := source.read(min(_CHUNK, expected - size)):
            hasher.update(chunk)
            size += len(chunk)
            target.write(chunk)
    return hasher.hexdigest(), size


def _manifest(
    spec: JobSpec,
    node_id: str,
    report: AttemptReport,
    usage: Usage,
    files: list[dict[str, Any]],
) -> dict[str, Any]:
    started_at, ended_at = report.started_at, report.ended_at
    wall_s = (ended_at - started_at).total_seconds() if started_at and ended_at else None
    return {
        "jobId": spec.job_id,
        "attempt": report.attempt.number,
        "node": node_id,
        "pricer": spec.pricer,
        "version": spec.version,
        "definition": spec.definition,
        "args": list(spec.args),
        "input": {"name": spec.filename, "digest": spec.input.digest, "size": spec.input.size},
        "data": [{"name": data.name, "digest": data.digest, "size": data.size} for data in spec.data],
        "outcome": report.outcome.value,
        "exit_code": report.exit_code,
        "signal": report.signal,
        "message": report.message,
        "started_at": started_at.isoformat() if started_at else None,
        "ended_at": ended_at.isoformat() if ended_at else None,
        "wall_s": wall_s,
        "cpu_user_s": usage.user_s,
        "cpu_system_s": usage.system_s,
        "max_rss_bytes": usage.max_rss_bytes,
        "warm": usage.warm_job is not None,
        "warm_job": usage.warm_job,
        "files": files,
    }
