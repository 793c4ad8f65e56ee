"""Unpacks the input ZIP of a job, which is not trusted.

Only ordinary files below `Input/` come out, within limits of number and size; everything is checked before
the first byte is written. Called by `run_ore.py`.
"""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

INPUT_FOLDER = "Input"
MAX_FILES = 10_000
MAX_BYTES = 1 << 30


class BadArchiveError(ValueError):
    """The input is not a ZIP file that can be run; the message contains why."""


def unpack(archive: Path, directory: Path) -> Path:
    """Unpack `archive` into `directory`, which must not hold an `Input` yet; the path of that folder.

    Raises BadArchiveError and leaves nothing behind when the file is no ZIP, holds more than plain files
    below `Input/`, exceeds MAX_FILES or MAX_BYTES once unpacked, or is damaged.
    """
    target = directory / INPUT_FOLDER
    if target.exists() or target.is_symlink():
        raise BadArchiveError(f"{target} exists already: run in a directory of its own")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked(opened.infolist())
            try:
                _extract(opened, members, directory)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
    except BadArchiveError as error:
        raise BadArchiveError(f"{archive}: {error}") from None
    except zipfile.BadZipFile as error:
        raise BadArchiveError(f"{archive}: not a usable ZIP file: {error}") from None
    except (OSError, EOFError, RuntimeError, NotImplementedError, ValueError, zlib.error) as error:
        # what zipfile raises for missing, encrypted, truncated or oddly compressed files
        raise BadArchiveError(f"{archive}: cannot be unpacked: {error}") from None
    return target


def _checked(members: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    if len(members) > MAX_FILES:
        raise BadArchiveError(f"{len(members)} files, more than the {MAX_FILES} allowed")
    total = sum(member.file_size for member in members)
    if total > MAX_BYTES:
        raise BadArchiveError(f"{total} bytes once unpacked, more than the {MAX_BYTES} allowed")
    seen: set[PurePosixPath] = set()
    for member in members:
        path = _safe_path(member)
        if path in seen:
            raise BadArchiveError(f"{member.filename!r} is in the archive twice")
        seen.add(path)
    return members


def _safe_path(member: zipfile.ZipInfo) -> PurePosixPath:
    name = member.orig_filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or ":" in name:
        raise BadArchiveError(f"{name!r} is not a plain relative path")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadArchiveError(f"{name!r} is a link or a special file")
    if path.parts[:1] != (INPUT_FOLDER,):
        raise BadArchiveError(f"{name!r} is not below {INPUT_FOLDER}/")
    return path


def _extract(opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], directory: Path) -> None:
    (directory / INPUT_FOLDER).mkdir()
    for member in members:
        target = directory / PurePosixPath(member.filename)
        if member.is_dir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(member) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink)
