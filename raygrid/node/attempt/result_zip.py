"""The result of an attempt as a ZIP: captured output, the files that the pricer wrote, and a manifest.

A small result is made in memory, a large one in a file outside of sandboxes (`zip_writers.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from uuid_utils import uuid4

from raygrid.blobs.chunks import CHUNK, digests, pieces_of
from raygrid.core.sandbox_state import SandboxState
from raygrid.node.attempt.stages import CollectedAttempt, ResultZip
from raygrid.node.attempt.zip_writers import MOST_FILES, FileZip, InMemoryZip, ZipWriter

RESERVED = frozenset({"stdout.txt", "stderr.txt", "manifest.json"})
PRICER_FILES = "pricer_files/"
IN_MEMORY = 4 * 1024**2
_ENCODE = json.JSONEncoder(separators=(",\n ", ": ")).encode


def name_in_zip(name: str) -> str:
    """The name of a pricer's file in the ZIP; one with a name that the node uses itself goes into a directory.

    Windows treats a backslash as a separator when it unpacks a ZIP, so that a name could lead out of the target
    directory. It is written as `%5C`; the manifest has the original name.
    """
    if "\\" in name:
        name = name.replace("\\", "%5C")
    return f"{PRICER_FILES}{name}" if name in RESERVED or name.startswith(PRICER_FILES) else name


def build_zip(collected: CollectedAttempt, node_id: str) -> ResultZip:
    """Make the ZIP of an attempt; a large one is written to disk.

    Raises:
        BadOutputError: a file was replaced.
        OSError: a file cannot be read, or the disk refuses the ZIP.
    """
    captures, files = collected.captures, collected.files
    total = sum([file.size for file in captures]) + sum([file.size for file in files])
    if total > IN_MEMORY or len(files) >= MOST_FILES:
        return _in_file(collected, node_id)
    small = InMemoryZip()
    _fill(small, collected, node_id)
    data = small.content()
    if len(data) <= CHUNK:  # a short cut for nearly all results
        return ResultZip(len(data), hashlib.sha256(data).hexdigest(), data, None)
    digest, chunks = digests(pieces_of(data))
    return ResultZip(len(data), digest, data, None, chunks)


def _in_file(collected: CollectedAttempt, node_id: str) -> ResultZip:
    directory = collected.judged.prepared.directory
    place, dir_fd = directory.unseen
    path = Path(place, f"{directory.handle.name}@{uuid4().hex}")  # a pricer cannot guess this name
    made = os.open(path.name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    try:
        with os.fdopen(made, "w+b") as out:
            with contextlib.closing(FileZip(out)) as large:
                _fill(large, collected, node_id)
            out.seek(0)
            digest, chunks = digests(iter(partial(out.read, CHUNK), b""))
            return ResultZip(os.fstat(made).st_size, digest, None, path, chunks)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path.name, dir_fd=dir_fd)
        raise


def _fill(archive: ZipWriter, collected: CollectedAttempt, node_id: str) -> None:
    names = [name_in_zip(file.name) for file in collected.files]
    for capture in collected.captures:
        archive.add(capture.name, capture)
    listed = []
    for name, file in zip(names, collected.files, strict=True):
        digest, size = archive.add(name, file)
        written = {"written_as": file.name} if "\\" in file.name else {}
        listed.append({"name": name, "size": size, "digest": digest, **written})
    sandbox = _sandbox(collected.judged.prepared.sandbox)
    archive.add_bytes("manifest.json", _lines(_manifest(collected, node_id, listed), sandbox))


def _lines(manifest: dict[str, Any], sandbox: str) -> bytes:
    """JSON with one field a line, for people to read; `indent` does the same at many times the cost."""
    return f'{_ENCODE(manifest)[:-1]},\n "sandbox": {sandbox}}}\n'.encode()


@lru_cache(maxsize=64)
def _sandbox(sandbox: SandboxState) -> str:
    """A sandbox as JSON; nearly all attempts of a node have the same."""
    return json.dumps(sandbox._asdict())


def _manifest(collected: CollectedAttempt, node_id: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    pricer = collected.judged.prepared.pricer
    spec, report, usage = collected.judged.prepared.spec, collected.report, collected.judged.usage
    started_at, ended_at = report.started_at, report.ended_at
    wall_s = (ended_at - started_at).total_seconds() if started_at and ended_at else None
    # Other owners may get this result; they must not learn whose job it was.
    is_anonymous = pricer.reuse == "content" and pricer.reuse_across_owners
    origin = {"jobId": spec.job_id, "owner": spec.owner or None, "attempt": report.attempt.number, "node": node_id}
    return {
        **({} if is_anonymous else origin),
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
