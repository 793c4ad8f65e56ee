"""Checks names of files: every UTF-8 name without control characters is allowed.

Pure. Clients and parents check the names of inputs, nodes the names of files that pricers write.
"""

from __future__ import annotations

import re

MOST_BYTES = 255
"""Longest name of a file in bytes of UTF-8, the limit of common file systems."""

# C0, DEL and C1. Spaces of any kind, zero-width characters and line separators (U+2028) are no control characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # Python shows bytes of a name that are not UTF-8 as surrogates


def problem_of_name(name: str) -> str | None:
    """Why a name or path is refused, as a phrase that begins with a verb; None if it is allowed."""
    if name.isascii() and name.isprintable():
        return None
    if _NOT_UTF8.search(name) is not None:
        return "is not UTF-8"
    control = _CONTROL.search(name)
    return None if control is None else f"has a control character, {control[0]!r}"


def problem_of_input(name: str) -> str | None:
    """As `problem_of_name`, for the name of an input, whose length is limited."""
    if (problem := problem_of_name(name)) is not None:
        return problem
    size = len(name.encode())
    return f"has {size} bytes; at most {MOST_BYTES} are possible" if size > MOST_BYTES else None


def last_component(path: str) -> str:
    """The name of a file without directories; some browsers and .NET programs send a full Windows path."""
    return path.replace("\\", "/").rpartition("/")[2]
