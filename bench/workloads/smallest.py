"""Workload 1: the smallest possible job, from the first submit until the client has the last result."""

from __future__ import annotations

from collections.abc import Iterable

from bench.contenders import load
from bench.figures import Figure, Plan
from bench.profile import profile_tiers
from bench.turns import Times, take_turns
from bench.workloads import Workload

COMMAND = ("/bin/true",)
JOBS = 3_000
INPUT = 1_024
RATE = "jobs/s"


def figure(name: str, what: str, values: Iterable[float], times: Times) -> Figure:
    """A contender's figure, with its version, its configuration and what it lacks."""
    contender = load(name)
    note = f"{times.version}: {contender.setup}" if times.absent is None else f"absent: {times.absent}"
    return Figure(name, what, tuple(values), note, contender.lacks)


def _measure(plan: Plan) -> list[Figure]:
    jobs = plan.jobs(JOBS)
    if plan.profile is not None:
        profile_tiers(plan.profile, COMMAND, jobs=jobs, size=INPUT, slots=plan.at_once)
    found = take_turns(plan, COMMAND, jobs=jobs, size=INPUT, at_once=plan.at_once)
    return [figure(name, RATE, (jobs / seconds for seconds in times.seconds), times) for name, times in found.items()]


WORKLOAD = Workload(f"{JOBS:,} jobs of /bin/true with an input of 1 KB", _measure)
