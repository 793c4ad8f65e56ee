"""The type of a case, and the list of all cases, in which each module of `cases/` registers its own."""

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


class Lane(Enum):
    """Which cases run at the same time: the cases of a lane run one after the other, the lanes in parallel."""

    SHARED = "cases that share a grid"
    OWN = "cases that start grids of their own"
    ALONE = "cases that measure the machine; this lane runs after the others"


@dataclass(frozen=True, slots=True)
class Case:
    """One case: `name` is what `--only` takes, `tools` what the machine must have."""

    name: str
    title: str
    tools: tuple[Tool, ...]
    run: Run
    lane: Lane = Lane.SHARED


CASES: dict[str, Case] = {}


def case(name: str, title: str, *tools: Tool, lane: Lane = Lane.SHARED) -> Callable[[Run], Run]:
    """Register a function as a case; the cases of a lane run in the order of registration."""

    def register(run: Run) -> Run:
        CASES[name] = Case(name, title, tools, run, lane)
        return run

    return register
