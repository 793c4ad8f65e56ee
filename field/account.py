"""The rows of the table that a run prints: what was tried and the outcome. Each row is printed at once."""

from __future__ import annotations

from dataclasses import dataclass

WIDTH = 150
RIGHT, WRONG, SKIPPED = "right", "WRONG", "skipped"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    case: str
    tried: str
    came_out: str
    verdict: str


class Account:
    """The rows of one run, or of one case of it."""

    def __init__(self, case: str = "") -> None:
        self.rows: list[Row] = []
        self.case = case

    def check(self, tried: str, came_out: object, right: bool) -> bool:
        """Record an outcome; returns `right`."""
        self._add(tried, came_out, RIGHT if right else WRONG)
        return right

    def skip(self, tried: str, reason: str) -> None:
        """Record that something could not be tried on this machine."""
        self._add(tried, reason, SKIPPED)

    def count(self, verdict: str) -> int:
        """The number of rows with this verdict."""
        return sum(row.verdict == verdict for row in self.rows)

    def _add(self, tried: str, came_out: object, verdict: str) -> None:
        row = Row(self.case, _cell(tried), _cell(came_out), verdict)
        self.rows.append(row)
        print(f"| {row.case} | {row.tried} | {row.came_out} | {row.verdict} |", flush=True)


def print_head() -> None:
    """Print the head of the table, in Markdown."""
    print("| case | what was tried | what came out | verdict |\n|---|---|---|---|", flush=True)


def _cell(value: object) -> str:
    """Text for a table cell: no line breaks or control characters, of limited length."""
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    line = " ".join(text.split()).replace("|", "\\|")
    shown = "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in line)
    return shown if len(shown) <= WIDTH else f"{shown[:WIDTH]}…"
