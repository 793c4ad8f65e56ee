"""The result of an attempt as a ZIP: what the pricer printed, a manifest, and the files that it wrote."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from raygrid.models import AttemptReport, JobSpec
from raygrid.node.usage import Usage
from raygrid.node.workspace import JobDirectory, OutputFile

RESERVED = frozenset({"stdout.txt", "stderr.txt", "manifest.json"})
ASIDE = "pricer_files/"
IN_MEMORY = 4 * 1024**2
_CHUNK = 1024**2
_SAMPLE = 64 * 1024
_TINY = 256  # compressing less than this makes it longer, and costs as much as a small job


@dataclass(frozen=True, slots=True)
class ResultZip:
    """A finished ZIP: its bytes where it is small, else a file."""

    size: int
    digest: str
    data: bytes | None
    path: Path | None


def name_in_zip(name: str) -> str:
    """Where a pricer's file stands in the ZIP; one that is named like a part of ours moves aside."""
    return f"{ASIDE}{name}" if name in RESERVED or name.startswith(ASIDE) else name


def build(
    directory: JobDirectory,
    spec: JobSpec,
    node_id: str,
    report: AttemptReport,
    usage: Usage,
    files: Sequence[OutputFile],
) -> ResultZip:
    """Make the ZIP of an attempt; large ones are written to disk beside the job directory."""
    captures = [OutputFile("stdout.txt", directory.stdout, directory.stdout.stat().st_size)]
    captures.append(OutputFile("stderr.txt", directory.stderr, directory.stderr.stat().st_size))
    total = sum(file.size for file in (*captures, *files))
    if total <= IN_MEMORY:
        buffer = io.BytesIO()
        _write(buffer, captures, spec, node_id, report, usage, files)
        data = buffer.getvalue()
        return ResultZip(len(data), hashlib.sha256(data).hexdigest(), data, None)
    path = directory.path.parent / f"{directory.path.name}@result"
    try:
        with path.open("wb") as out:
            _write(out, captures, spec, node_id, report, usage, files)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    with path.open("rb") as done:
        digest = hashlib.file_digest(done, "sha256").hexdigest()
    return ResultZip(path.stat().st_size, digest, None, path)


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
            listed.append({"name": name, "size": size, "digest": digest})
        manifest = _manifest(spec, node_id, report, usage, listed)
        # A field a line, for people; `indent` would do that, too, at ten times the cost.
        lines = ",\n ".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in manifest.items())
        _add_bytes(archive, "manifest.json", f"{{\n {lines}\n}}\n".encode())


def _add_bytes(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)  # no time stamp: the same output makes the same bytes
    info.external_attr = 0o644 << 16
    kind = zipfile.ZIP_STORED if len(data) < _TINY else zipfile.ZIP_DEFLATED
    archive.writestr(info, data, compress_type=kind)


def _add(archive: zipfile.ZipFile, name: str, file: OutputFile) -> tuple[str, int]:
    """Add a file; gives sha256 and size of what was added, which may differ from what was seen if it still grows."""
    if file.size <= _CHUNK:
        data = b""
        if file.size:
            with _opened(file.path) as source:
                data = source.read()
        _add_bytes(archive, name, data)
        return hashlib.sha256(data).hexdigest(), len(data)
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o644 << 16
    info.file_size = file.size  # lets zipfile choose ZIP64 in time
    with _opened(file.path) as source:
        info.compress_type = zipfile.ZIP_DEFLATED if _is_compressible(source) else zipfile.ZIP_STORED
        return _copy(source, archive, info, file.size)


def _opened(path: Path) -> IO[bytes]:
    """A pricer's file; neither a link nor a pipe that took its place a moment ago can lead or hold us elsewhere.

    Raises:
        OSError: it is a link by now.
    """
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def _is_compressible(source: IO[bytes]) -> bool:
    """Whether the beginning of a file shrinks; what does not costs much time and gains nothing."""
    sample = source.read(_SAMPLE)
    source.seek(0)
    return len(zlib.compress(sample, 1)) < 0.9 * len(sample)


def _copy(source: IO[bytes], archive: zipfile.ZipFile, info: zipfile.ZipInfo, expected: int) -> tuple[str, int]:
    hasher, size = hashlib.sha256(), 0
    with archive.open(info, "w", force_zip64=expected > 2**31) as target:
        while chunk := source.read(_CHUNK):
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
