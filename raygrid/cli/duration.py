"""Durations as people write them: `90s`, `10m`, `1h30m`."""

from __future__ import annotations

import math
import re
from functools import partial

import typer

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def seconds_of(text: str | float) -> float:
    """Read a duration such as `90s`, `10m`, `1h30m` or `90d`; a bare number is seconds.

    Raises:
        typer.BadParameter: it is not a duration.
    """
    if isinstance(text, float):
        return text  # the default of an option, which the parser gets, too
    text = text.strip().lower()
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if _WHOLE.fullmatch(text):
        seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 <= seconds < math.inf:
        raise typer.BadParameter(f"{text!r} is not a duration; write for instance 90s, 10m, 1h30m or 90d")
    return seconds


duration_option = partial(typer.Option, parser=seconds_of, metavar="DURATION")
"""An option of a command whose value is a duration."""


def words_of(seconds: float) -> str:
    """Write a duration, rounded to seconds, without units that are zero."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in _UNITS.items():
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
