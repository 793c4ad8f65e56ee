"""Checks names of files: every UTF-8 name without control characters is allowed.

Pure. Clients and parents check the names of inputs, nodes the names of files that pricers write. Clients on Windows
also check the names of the files that they unpack.
"""

from __future__ import annotations

import os
import re

MOST_BYTES = 255
"""Longest name of a file in bytes of UTF-8, the limit of common file systems."""

# C0, DEL and C1. Spaces of any kind, zero-width characters and line separators (U+2028) are no control characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # Python shows bytes of a name that are not UTF-8 as surrogates

_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*\\]')
_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(COM|LPT)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE)
_ON_WINDOWS = os.name == "nt"


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


def problem_here(path: str) -> str | None:
    """Why a path in a result, with `/` between its components, cannot be unpacked on this system; None if it can."""
    return problem_on_windows(path) if _ON_WINDOWS else None


def problem_on_windows(path: str) -> str | None:
    r"""Why Windows does not write a file under exactly this path, as a phrase that begins with a verb; None if it does.

    `C:x` leads to another drive, `x:y` into a stream of the file `x`, `..\x` out of the directory, `NUL` to a device,
    and `x.` to the file `x`.
    """
    for part in path.split("/"):
        if (odd := _NOT_ON_WINDOWS.search(part)) is not None:
            return f"has the character {odd[0]!r}, which Windows does not allow"
        if part.endswith((".", " ")):
            return f"has a part that ends with {part[-1]!r}, which Windows leaves out"
        if _DEVICE.fullmatch(part.partition(".")[0].rstrip(" ")) is not None:
            return f"has the part {part!r}, which is a device on Windows"
    return None


def last_component(path: str) -> str:
    """The name of a file without directories; some browsers and .NET programs send a full Windows path."""
    return path.replace("\\", "/").rpartition("/")[2]
