"""Types of values for settings of several sections, and the base of all sections."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kmgt]?)(?:i?b)?", re.IGNORECASE)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _bytes(value: object) -> object:
    return size_in_bytes(value) if isinstance(value, str) else value


def size_in_bytes(value: str) -> int:
    """Read `64MB`, `10 GiB` or a plain number of bytes; powers of 1024.

    Raises:
        ValueError: it is not a size.
    """
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is not a size; write for instance 64MB or 1048576")
    try:
        return int(float(match["number"]) * _UNITS[match["unit"].lower()])
    except OverflowError:  # hundreds of digits
        raise ValueError("this size is larger than any disk") from None


def _name(value: str) -> str:
    if NAME.fullmatch(value) is None:
        raise ValueError(f"{value!r} is not a name; use up to 64 letters, digits, '.', '_' or '-'")
    return value


def _off(value: object) -> object:
    return "off" if value is False else value  # YAML reads a bare `off` as false


def _place(value: str) -> str:
    if not value.startswith(("/", "~/")):
        raise ValueError(
            "write an absolute path, or one that begins with ~/ for the home directory of the grid's user on each node"
        )
    if "\0" in value:
        raise ValueError("a path cannot contain NUL")
    return value


Size = Annotated[int, BeforeValidator(_bytes), Field(ge=0)]
Name = Annotated[str, AfterValidator(_name)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PlaceOnNodes = Annotated[str, AfterValidator(_place)]
SandboxMode = Annotated[Literal["protect", "strict", "off"], BeforeValidator(_off)]
ReuseMode = Annotated[Literal["off", "content"], BeforeValidator(_off)]


class Section(BaseModel):
    """Base of all sections of the settings: unknown fields are errors, values are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)
