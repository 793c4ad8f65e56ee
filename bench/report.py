"""Figures and verdicts as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.figures import Figure, Measured, Plan
from bench.goals import Verdict
from raygrid.trial.verdict import figure as shown

_NUMBERS = (2, 3, 4)
_MARKS = {True: "reached", False: "MISSED", None: "open"}


def show(measured: Measured, verdicts: Sequence[Verdict]) -> None:
    """Print the table of a workload, and what came of its goals."""
    print(f"\nWorkload {measured.workload}: {measured.title}")
    if measured.broke:
        print(f"  BROKE: {measured.broke}")
    heads = ["of", "what", "median", "lowest", "highest", "does not do", ""]
    rows = [[each.of, each.what, *_numbers(each), each.lacks, each.note] for each in measured.figures]
    if not any(each.lacks for each in measured.figures):
        heads, rows = [*heads[:5], ""], [[*row[:5], row[6]] for row in rows]
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    for row in (heads, *rows):
        cells = (
            cell.rjust(width) if at in _NUMBERS else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
    for verdict in verdicts:
        print(f"{_MARKS[verdict.reached]:>8}: {verdict.goal.what}: {verdict.said}")


def _numbers(figure: Figure) -> tuple[str, str, str]:
    if figure.median is None:
        return "-", "-", "-"
    return shown(figure.median), shown(min(figure.values)), shown(max(figure.values))


def write_json(path: Path, plan: Plan, done: Sequence[tuple[Measured, Sequence[Verdict]]]) -> None:
    """Write everything that was measured: medians, spread and each round's value."""
    path.write_text(
        json.dumps({"machine": _machine(), "plan": _plan(plan), "workloads": [*map(_as_json, done)]}, indent=1)
    )


def _as_json(of: tuple[Measured, Sequence[Verdict]]) -> dict[str, Any]:
    measured, verdicts = of
    return {
        "workload": measured.workload,
        "title": measured.title,
        "broke": measured.broke,
        "figures": [
            {
                "of": figure.of,
                "what": figure.what,
                "median": figure.median,
                "lowest": min(figure.values, default=None),
                "highest": max(figure.values, default=None),
                "values": figure.values,
                "note": figure.note,
                "does_not_do": figure.lacks,
            }
            for figure in measured.figures
        ],
        "goals": [{"goal": each.goal.what, "reached": each.reached, "said": each.said} for each in verdicts],
    }


def _plan(plan: Plan) -> dict[str, Any]:
    return {"rounds": plan.rounds, "size": plan.size, "at_once": plan.at_once, "only": sorted(plan.only)}


def _machine() -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
