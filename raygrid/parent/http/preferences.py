"""Parses the header `Prefer` (RFC 7240), by which a client can ask not to wait for the result."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rf'(?:"((?:[^"\\]|\\.)*)"|({_NAME}))?'
_PREFERENCE = re.compile(rf"({_NAME})(?:[ \t]*=[ \t]*{_VALUE})?")
_PARAMETERS = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")*')
_SECONDS = re.compile(r"[0-9]{1,5}")


def preferences(headers: Iterable[str]) -> dict[str, str]:
    """The preferences of a request: name in lower case to value, which may be empty.

    The first of several preferences with the same name counts. Malformed ones are ignored, as the RFC allows.
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
    """The preferred wait of a client, seconds; None if it states none."""
    value = found.get("wait", "")
    return float(value) if _SECONDS.fullmatch(value) else None
