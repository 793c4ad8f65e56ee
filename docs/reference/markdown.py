"""Markdown elements of the generated pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CODE_SPAN = re.compile(r"(`[^`]*`)")


def text(value: str) -> str:
    """Text from docstrings, escaped outside of code spans, so that it is not read as Markdown or HTML."""
    parts = _CODE_SPAN.split(value)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", r"\*") for part in parts)


def code(value: object) -> str:
    """A code span."""
    return f"`{value}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; line breaks in cells become spaces, and pipes are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", r"\|")


def page(title: str, opening: str, parts: Iterable[str]) -> str:
    """A page; its parts are separated by empty lines."""
    return "\n\n".join((f"# {title}", opening, *parts)) + "\n"
