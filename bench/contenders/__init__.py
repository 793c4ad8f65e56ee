"""The contenders, one file each: all run the same command equally often, with as many processes at once.

Each is configured as its own documentation recommends for throughput. If possible, the input is sent to the worker,
which ignores it. Only raygrid writes it to a file, captures the command's output, and stores results. So the others are
measured at their fastest, and do less.
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
"""Names of the contenders, in the order of their turns, and their modules."""


def load(name: str) -> Contender:
    """The contender of that name; its packages are imported when it is opened."""
    contender: Contender = importlib.import_module(f"bench.contenders.{MODULES[name]}").CONTENDER
    return contender


__all__ = ["GRID", "MODULES", "AbsentError", "Contender", "Run", "load"]
