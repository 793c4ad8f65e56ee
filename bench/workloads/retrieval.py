"""Workload 8: retrieval alone, of jobs that ended before: in bulk and one by one."""

from __future__ import annotations

import time

from bench.figures import Figure, Plan
from bench.grid import grid
from bench.workloads import Workload

JOBS = 3_000
SINGLE = 500
RATE = "results/s"


def _measure(plan: Plan) -> list[Figure]:
    jobs, singles = plan.jobs(JOBS), plan.jobs(SINGLE)
    bulk, single = [], []
    with grid({"bench": {"command": ["/bin/true"]}}, slots=plan.at_once) as bench:
        submitted = bench.client.map([b"x" * 1024] * jobs)
        while not submitted.status().finished:
            time.sleep(0.1)
        for number in range(plan.rounds + 1):  # the first warms up
            batch = bench.client.batch(submitted.batch_id)
            began = time.perf_counter()
            sizes = [len(result.data) for result in batch.results()]
            in_bulk = len(sizes) / (time.perf_counter() - began)
            began = time.perf_counter()
            for job in submitted[:singles]:
                assert bench.client.job(job.job_id).result().data
            one_by_one = singles / (time.perf_counter() - began)
            assert len(sizes) == jobs
            if number:
                bulk.append(in_bulk)
                single.append(one_by_one)
    return [
        Figure("in bulk", RATE, tuple(bulk), f"{jobs:,} results of one batch, each a ZIP in memory"),
        Figure("one by one", RATE, tuple(single), f"{singles:,} requests, one after the other"),
    ]


WORKLOAD = Workload(f"fetching {JOBS:,} results of jobs that ended before", _measure)
