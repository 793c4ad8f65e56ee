"""Workload 7: the cost of a job while many are queued behind it, and the memory of leader and parent for the queue.

Jobs that wait for a file hold the slots while the queue is filled; then the file appears, and the oldest jobs are
timed, in blocks. So only a part of the queue runs, while all of it exists.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.figures import Figure, Plan
from bench.grid import BenchGrid, grid
from bench.tiers import peak
from bench.workloads import Workload
from raygrid.client import BatchJobs

DEPTHS = (2_000, 20_000, 100_000)
TIMED = 2_000
FILL = 2_000
COST, ADDED, MEMORY = "ms a job", "ms a submit, at this depth", "MB at most"


def of(depth: int) -> str:
    """The name of a depth in the figures."""
    return f"{depth:,} queued"


def _submitted(bench: BenchGrid, jobs: int) -> BatchJobs:
    return bench.client.map([b"x" * 1024] * jobs, pricer="bench")


def _fetched(batch: BatchJobs) -> float:
    began = time.perf_counter()
    assert all(result.manifest["exit_code"] == 0 for result in batch.results())
    return time.perf_counter() - began


def _at(plan: Plan, depth: int) -> tuple[list[float], float, dict[str, int]]:
    """Milliseconds per job in each block, per submit when the queue was full, and peak memory by tier."""
    go = plan.scratch / f"go-{depth}"
    hold = {"command": ["sh", "-c", f"until [ -e {go} ]; do sleep 0.1; done"]}
    timed = plan.jobs(TIMED)
    with grid({"bench": {"command": ["/bin/true"]}, "hold": hold}, slots=plan.at_once) as bench:
        _fetched(_submitted(bench, timed))
        holders = bench.client.map([b"-"] * plan.at_once, pricer="hold", priority=1)
        while bench.client.capacity().running < plan.at_once:
            time.sleep(0.05)
        blocks = [_submitted(bench, timed) for _ in range(plan.rounds)]
        added = 0.0
        for start in range(0, depth, FILL):
            more = min(FILL, depth - start)
            began = time.perf_counter()
            _submitted(bench, more)
            added = (time.perf_counter() - began) / more * 1_000
        go.touch()
        list(holders.results())
        costs = [_fetched(block) / timed * 1_000 for block in blocks]
        return costs, added, peak(bench.pid)


def _measure(plan: Plan) -> list[Figure]:
    depths: Sequence[int] = DEPTHS if plan.size >= 1 else [plan.jobs(depth) for depth in DEPTHS]
    figures = []
    for depth in depths:
        costs, added, peaks = _at(plan, depth)
        figures += [
            Figure(of(depth), COST, tuple(costs), f"{plan.jobs(TIMED):,} at a time, with so many behind the last"),
            Figure(of(depth), ADDED, (added,)),
            *(Figure(f"{of(depth)}: {tier}", MEMORY, (most / 1e6,)) for tier, most in peaks.items()),
        ]
    return figures


WORKLOAD = Workload("cost of a job of /bin/true while many are queued, and memory", _measure)
