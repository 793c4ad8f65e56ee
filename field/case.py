"""What a case is, and the list of all cases: each module in `cases/` registers its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from field.account import Account
    from field.desk import Desk
    from field.tools import Tool

Run = Callable[["Desk", "Account"], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `name` is what `--only` takes, `tools` what the machine must have."""

    name: str
    title: str
    tools: tuple[Tool, ...]
    run: Run


CASES: dict[str, Case] = {}


def case(name: str, title: str, *tools: Tool) -> Callable[[Run], Run]:
    """Register a function as a case; cases run in the order of registration."""

    def register(run: Run) -> Run:
        CASES[name] = Case(name, title, tools, run)
        return run

    return register
