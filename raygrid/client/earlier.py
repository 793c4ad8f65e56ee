"""Takes away what an earlier result left in a directory before another one is unpacked there.

Without it a job that writes fewer files than the one before would seem to have written the earlier one's, and a reader
would take yesterday's prices for today's. Called by `Result.extract` and by the commands.
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
    """Remove the files of the result that was unpacked there, as its manifest lists them.

    A file that was changed since, one that the manifest does not list, and whatever is no plain file stay.

    Args:
        directory: where a result is about to be unpacked; it may be missing.
        whole: remove stdout, stderr and the manifest as well, because nothing takes their place.
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
    # A pricer may write a manifest of its own, for example of a web page: only ours has all of these.
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
            # Neither out of the directory nor through a link in it.
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
