"""Workload 1: the smallest possible job, from the first submit until the last result is in the client's hands."""

from __future__ import annotations

from bench.contenders import load
from bench.figures import Figure, Plan
from bench.profile import profile_tiers
from bench.turns import Times, take_turns
from bench.workloads import Workload

COMMAND = ("/bin/true",)
JOBS = 3_000
INPUT = 1_024
RATE = "jobs/s"


def note(name: str, times: Times) -> str:
    """What stands beside a contender's figure: version, setup, and what it does not do."""
    if times.absent is not None:
        return f"absent: {times.absent}"
    contender = load(name)
    lacks = f"; lacks: {contender.lacks}" if contender.lacks else "; durable, results kept and fetched"
    return f"{times.version} ({contender.setup}){lacks}"


def _measure(plan: Plan) -> list[Figure]:
    jobs = plan.jobs(JOBS)
    if plan.profile is not None:
        profile_tiers(plan.profile, COMMAND, jobs=jobs, size=INPUT, slots=plan.at_once)
    found = take_turns(plan, COMMAND, jobs=jobs, size=INPUT, at_once=plan.at_once)
    return [
        Figure(name, RATE, tuple(jobs / seconds for seconds in times.seconds), note(name, times))
        for name, times in found.items()
    ]


WORKLOAD = Workload(f"{JOBS:,} jobs of /bin/true with an input of 1 KB", _measure)
