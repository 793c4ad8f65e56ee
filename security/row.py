"""A row of the summary that `make security` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """What one test did.

    Attributes:
        test: its name.
        extent: how much was tried.
        seconds: how long that took.
        result: what was found; `skipped` with a reason.
        passed: whether nothing was found.
    """

    test: str
    extent: str
    seconds: float
    result: str
    passed: bool


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown."""
    lines = ["| test | extent | time | result |", "|---|---|---|---|"]
    for each in rows:
        result = each.result if each.passed else f"**{each.result}**"
        lines.append(f"| {each.test} | {each.extent} | {each.seconds:.0f} s | {result} |")
    return "\n".join(lines)
