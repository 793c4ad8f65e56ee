"""Workload 4: one synchronous submit at a time on an idle grid, each followed by a bare spawn of the same command."""

from __future__ import annotations

import subprocess
import time

import httpx

from bench.figures import Figure, Plan, percentile
from bench.grid import grid
from bench.workloads import Workload

COMMAND = ("/bin/true",)
JOBS = 300
P50, P99 = "ms p50", "ms p99"


def _measure(plan: Plan) -> list[Figure]:
    jobs = plan.jobs(JOBS, at_least=20)
    spawns: list[list[float]] = []
    submits: list[list[float]] = []
    with (
        grid({"bench": {"command": list(COMMAND)}}, slots=plan.at_once) as bench,
        httpx.Client(base_url=bench.url, timeout=60) as http,
    ):
        for number in range(plan.rounds + 1):  # the first warms up
            spawned, submitted = [], []
            for job in range(jobs if number else max(10, jobs // 5)):
                began = time.perf_counter()
                answer = http.post(f"/submit/round-{number}-{job}", files={"file": ("input", b"x" * 1024)})
                submitted.append((time.perf_counter() - began) * 1_000)
                assert answer.status_code == httpx.codes.OK, answer.text
                began = time.perf_counter()
                subprocess.run(COMMAND, check=True)
                spawned.append((time.perf_counter() - began) * 1_000)
            if number:
                spawns.append(spawned)
                submits.append(submitted)
    return [
        Figure(of, what, tuple(percentile(each, share) for each in rounds), said)
        for of, rounds, said in (
            ("bare spawn", spawns, "subprocess.run"),
            ("raygrid", submits, "POST /submit/{jobId}, until its ZIP is here; one connection"),
        )
        for what, share in ((P50, 0.5), (P99, 0.99))
    ]


WORKLOAD = Workload(f"one synchronous submit of {COMMAND[0]} at a time on an idle grid, {JOBS} a round", _measure)
