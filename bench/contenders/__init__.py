"""Who competes: one file each, all running the same command as often, with as many processes at once.

Each is configured as its own documentation recommends for throughput. Where that is possible the input travels to the
worker, which does nothing with it; none but raygrid writes it to a file, captures what the command prints, or keeps
anything. So the others are measured at their fastest, and doing less.
"""

from __future__ import annotations

import importlib

from bench.contenders.contender import AbsentError, Contender, Run

GRID = "raygrid"
MODULES = {
    "xargs": "xargs",
    "threads": "threads",
    "HyperQueue": "hyperqueue",
    "Dask": "dask",
    "Celery": "celery",
    "Ray": "ray",
    GRID: "raygrid",
}
"""Names of the contenders, in the order of their turns, and the files they are in."""


def load(name: str) -> Contender:
    """The contender of that name; its packages are imported when it is opened."""
    contender: Contender = importlib.import_module(f"bench.contenders.{MODULES[name]}").CONTENDER
    return contender


__all__ = ["GRID", "MODULES", "AbsentError", "Contender", "Run", "load"]
