"""The workloads, one file each: a title, and a function from the plan to the figures."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from bench.figures import Figure, Plan

MODULES = {
    1: "smallest",
    2: "sleeping",
    3: "quantlib",
    4: "one_at_a_time",
    5: "large",
    6: "shared_data",
    7: "queued",
    8: "retrieval",
}


@dataclass(frozen=True, slots=True)
class Workload:
    """One workload: its title and how it is measured."""

    title: str
    measure: Callable[[Plan], list[Figure]]


def load(number: int) -> Workload:
    """The workload with that number."""
    workload: Workload = importlib.import_module(f"bench.workloads.{MODULES[number]}").WORKLOAD
    return workload
