"""Removes the files of an earlier result from a directory before another result is unpacked there.

Otherwise a file that only the earlier job wrote would look like a file of the new job: yesterday's prices like today's.
Called by `Result.extract` and by the commands.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

_MANIFEST = "manifest.json"
_OWN = (_MANIFEST, "stdout.txt", "stderr.txt")
_MOST_MANIFEST = 64 * 1024**2


def remove_earlier(directory: Path, *, whole: bool = False) -> None:
    """Remove the files that the manifest in a directory lists, if they are unchanged regular files.

    Args:
        directory: where a result is about to be unpacked; it may be missing.
        whole: remove stdout, stderr and the manifest, too, because no result replaces them.
    """
    root = directory.resolve()
    manifest = _manifest_in(root)
    if manifest is None:
        return
    for path, size, digest in _files_of(manifest, root):
        if _is_as_unpacked(path, size, digest):
            path.unlink()
            _remove_empty(path.parent, root)
    for name in _OWN if whole else ():
        (root / name).unlink(missing_ok=True)


def _manifest_in(root: Path) -> dict[str, Any] | None:
    path = root / _MANIFEST
    try:
        if path.is_symlink() or path.stat().st_size > _MOST_MANIFEST:
            return None
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    # A pricer may write a file of this name for another purpose; only raygrid's has all of these members.
    return (
        manifest if isinstance(manifest, dict) and {"jobId", "attempt", "outcome", "files"} <= manifest.keys() else None
    )


def _files_of(manifest: dict[str, Any], root: Path) -> Iterator[tuple[Path, int, str]]:
    listed = manifest["files"]
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict):
            continue
        name, size, digest = each.get("name"), each.get("size"), each.get("digest")
        if isinstance(name, str) and isinstance(size, int) and isinstance(digest, str) and "\0" not in name:
            relative = PurePosixPath(name)
            path = root / relative
            # The path must not leave the directory, not even through a link in it.
            if not relative.is_absolute() and ".." not in relative.parts and path.resolve() == path:
                yield path, size, digest


def _is_as_unpacked(path: Path, size: int, digest: str) -> bool:
    try:
        if not path.is_file() or path.stat().st_size != size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == digest
    except OSError:
        return False


def _remove_empty(directory: Path, root: Path) -> None:
    while directory != root:
        try:
            directory.rmdir()
        except OSError:  # something else is in there
            return
        directory = directory.parent
