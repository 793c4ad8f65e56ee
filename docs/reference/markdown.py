"""Small pieces of Markdown that the generated pages share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Text with one of these outside of a code span would be read as Markdown or HTML.
_CODE_SPAN = re.compile(r"(`[^`]*`)")


def text(value: str) -> str:
    """Prose from the code: what is not in backquotes is shown as it is."""
    parts = _CODE_SPAN.split(value)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", r"\*") for part in parts)


def code(value: object) -> str:
    """A code span."""
    return f"`{value}`"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a cell may not have line breaks, and its pipes are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", r"\|")


def page(title: str, opening: str, parts: Iterable[str]) -> str:
    """A whole page; its parts are separated by empty lines."""
    return "\n\n".join((f"# {title}", opening, *parts)) + "\n"
