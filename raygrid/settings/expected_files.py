"""Files that a pricer must leave (`expect` in its settings): which names are allowed, and which files are missing.

Pure. `settings/pricer.py` checks the names; `node/attempt/collect.py` checks the files after exit code 0.
"""

from __future__ import annotations

import fnmatch
import unicodedata
from collections.abc import Iterable, Sequence

MOST_NAMES = 100
MOST_NAME = 255  # bytes of one component, as file systems have it
_MOST_SHOWN = 10
_OWN = frozenset({"stdout.txt", "stderr.txt", "manifest.json"})
_DATA = "data"
_WILD = frozenset("*?[")
_REMEDY = (
    "check its stdout and stderr, and that it writes to its working directory; a Windows program that loses its "
    "wineserver also exits with 0 and leaves no files"
)


def name_problem(name: str) -> str | None:
    """Why a name in `expect` is refused, for its author; None if it is accepted."""
    parts, shown = name.split("/"), repr(name[:80])
    problems = (
        (not name, "an expected file has an empty name; write for instance prices.csv"),
        (
            any(unicodedata.category(each) in ("Cc", "Cs") for each in name),
            f"{shown} has a control character, such as a NUL, which names in a result cannot have",
        ),
        (
            name.startswith("/"),
            f"{shown} is an absolute path; name a file in the job directory, such as prices.csv or out/prices.csv",
        ),
        ("\\" in name, f"{shown} has a backslash; write '/' between directory and file"),
        (
            any(part in ("", ".", "..") for part in parts),
            f"{shown} is not a plain path in the job directory: remove '.', '..' and doubled or trailing slashes",
        ),
        (
            any(len(part.encode(errors="replace")) > MOST_NAME for part in parts),
            f"{shown} has a part of more than {MOST_NAME} bytes, the limit of file systems",
        ),
        (name in _OWN, f"{name} is always written by the grid; name a file that the pricer writes"),
        (
            parts[0] == _DATA,
            f"{shown} lies under {_DATA}/, the directory of shared inputs, which is not part of a result",
        ),
    )
    return next((problem for is_so, problem in problems if is_so), None)


def missing_files(expected: Sequence[str], files: Iterable[tuple[str, int]]) -> list[str]:
    """The expected names and patterns without a non-empty file among `files` (names and sizes); in the given order.

    Names are relative to the job directory; `*`, `?` and `[…]` work as in a shell and never match a '/'.
    """
    there = {name for name, size in files if size > 0}
    return [each for each in expected if each not in there and not _is_matched(each, there)]


def missing_message(names: Sequence[str], files: Iterable[tuple[str, int]]) -> str:
    """The message to the client: what is missing and what to check."""
    empty = {name for name, size in files if size == 0}
    shown = [f"{name} (empty)" if name in empty else name for name in names[:_MOST_SHOWN]]
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    left_out = ", ".join(shown) + more
    return f"the pricer exited with 0 but did not leave {left_out}, which the setting expect requires; {_REMEDY}"


def _is_matched(pattern: str, names: Iterable[str]) -> bool:
    if not _WILD & set(pattern):
        return False
    wanted = pattern.split("/")
    for name in names:
        parts = name.split("/")
        if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
            return True
    return False
