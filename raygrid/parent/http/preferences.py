"""The header `Prefer` (RFC 7240): what a client would like, such as not to wait for the result."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rf'(?:"((?:[^"\\]|\\.)*)"|({_NAME}))?'
_PREFERENCE = re.compile(rf"({_NAME})(?:[ \t]*=[ \t]*{_VALUE})?")
_PARAMETERS = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")*')
_SECONDS = re.compile(r"[0-9]{1,5}")


def preferences(headers: Iterable[str]) -> dict[str, str]:
    """The preferences of a request by their names in small letters; one without a value has an empty one.

    Names are the same in any capitals, and the first of a name counts. What is malformed is left out: a preference may
    be ignored.
    """
    found: dict[str, str] = {}
    for header in headers:
        at = 0
        while at < len(header):
            start = len(header) - len(header[at:].lstrip(" \t,"))
            match = _PREFERENCE.match(header, start)
            if match is not None:
                found.setdefault(match[1].lower(), match[2] or match[3] or "")
            end = _PARAMETERS.match(header, start if match is None else match.end())
            assert end is not None  # it may be empty
            at = max(end.end(), start) + 1
    return found


def wait_s(found: dict[str, str]) -> float | None:
    """How long a client would like to wait, seconds; None where it does not state it."""
    value = found.get("wait", "")
    return float(value) if _SECONDS.fullmatch(value) else None
