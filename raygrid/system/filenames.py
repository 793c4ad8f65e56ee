"""Which names files may have in the grid: whatever a file system takes, but for control characters.

Pure. Clients and parents check the names of inputs with it, nodes those of the files that pricers write.
"""

from __future__ import annotations

import re

MOST_BYTES = 255
"""The longest name of a file, as UTF-8; file systems take no more."""

# C0, DEL and C1. Spaces of any kind, zero-width characters and separators of lines (U+2028) are no control characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # how Python shows bytes of a name that are not UTF-8


def problem_of(name: str) -> str | None:
    """Why a path, or a name, cannot be that of a file in the grid; None where it can. Begins with a verb."""
    if name.isascii() and name.isprintable():
        return None
    if _NOT_UTF8.search(name) is not None:
        return "is not UTF-8"
    control = _CONTROL.search(name)
    return None if control is None else f"has a control character, {control[0]!r}"


def problem_of_input(name: str) -> str | None:
    """Why an input cannot have a name; None where it can. Begins with a verb."""
    if (problem := problem_of(name)) is not None:
        return problem
    size = len(name.encode())
    return f"has {size} bytes; at most {MOST_BYTES} are possible" if size > MOST_BYTES else None


def last_component(path: str) -> str:
    """What a file is called without its directories: some browsers and .NET programs send a whole Windows path."""
    return path.replace("\\", "/").rpartition("/")[2]
