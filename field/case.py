"""What a case is, and the list of all cases: each module in `cases/` registers its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from field.account import Account
    from field.desk import Desk
    from field.tools import Tool

Run = Callable[["Desk", "Account"], None]


class Row(Enum):
    """What a case runs beside: the cases of one row run one after the other, those of different rows at once."""

    SHARED = "cases that share a grid"
    OWN = "cases that start grids of their own"
    ALONE = "cases that measure the machine: once all others have ended"


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `name` is what `--only` takes, `tools` what the machine must have."""

    name: str
    title: str
    tools: tuple[Tool, ...]
    run: Run
    row: Row = Row.SHARED


CASES: dict[str, Case] = {}


def case(name: str, title: str, *tools: Tool, row: Row = Row.SHARED) -> Callable[[Run], Run]:
    """Register a function as a case; the cases of a row run in the order of registration."""

    def register(run: Run) -> Run:
        CASES[name] = Case(name, title, tools, run, row)
        return run

    return register
