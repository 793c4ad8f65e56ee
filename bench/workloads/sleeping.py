"""Workload 2: a pricer that sleeps for 100 ms, on more slots than cores: the share of the slots' time that is used."""

from __future__ import annotations

from bench.figures import Figure, Plan
from bench.turns import take_turns
from bench.workloads import Workload
from bench.workloads.smallest import INPUT, figure

JOBS = 2_000
SLOTS = 16
SLEEP_S = 0.1
SHARE = "share of slots' time"


def _measure(plan: Plan) -> list[Figure]:
    jobs = plan.jobs(JOBS, at_least=SLOTS)
    found = take_turns(plan, ("/bin/sleep", str(SLEEP_S)), jobs=jobs, size=INPUT, at_once=SLOTS)
    ideal = jobs * SLEEP_S / SLOTS
    return [figure(name, SHARE, (ideal / seconds for seconds in times.seconds), times) for name, times in found.items()]


WORKLOAD = Workload(
    f"{JOBS:,} jobs that sleep for {SLEEP_S:g} s, {SLOTS} at once; the time without any loss over the time taken",
    _measure,
)
