"""Workload 6: a market-data file of 20 MB that every job reads: stored once, and how many bytes move."""

from __future__ import annotations

import os
import time

from bench.figures import Figure, Plan
from bench.grid import BenchGrid, grid
from bench.workloads import Workload

JOBS = 1_000
MARKET_MB = 20
MB = 1_000_000


def _rate(bench: BenchGrid, jobs: int, pricer: str, data: list[str]) -> float:
    began = time.perf_counter()
    for result in bench.client.map([b"x" * 1024] * jobs, pricer=pricer, data=data).results():
        assert result.manifest["exit_code"] == 0
    return jobs / (time.perf_counter() - began)


def _read_by_nodes(bench: BenchGrid) -> float:
    return sum(node.traffic.data for node in bench.client.nodes()) / MB


def _stored(bench: BenchGrid) -> float:
    """MB of copies of the file below the state directory: blobs, and the node's own copies."""
    files = [path for path in bench.state_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files if path.stat().st_size >= MB * MARKET_MB // 2) / MB


def _measure(plan: Plan) -> list[Figure]:
    jobs = plan.jobs(JOBS)
    pricers = {
        # `stat` does not read the file, so only the grid's work is measured.
        "market": {"command": ["stat", "-c", "%s", "{data_dir}/market"]},
        "without": {"command": ["stat", "-c", "%s", "{input}"]},
    }
    rates_with, rates_without, stores, reads, kept = [], [], [], [], []
    with grid(pricers, slots=plan.at_once) as bench:
        for number in range(plan.rounds + 1):
            market, before, held = os.urandom(MARKET_MB * MB), _read_by_nodes(bench), _stored(bench)
            began = time.perf_counter()
            bench.client.put_data("market", market)
            store_s = time.perf_counter() - began
            of_market = _rate(bench, jobs, "market", ["market"])
            without = _rate(bench, jobs, "without", [])
            if number:  # the first warms up
                rates_with.append(of_market)
                rates_without.append(without)
                stores.append(MARKET_MB / store_s)
                reads.append(_read_by_nodes(bench) - before)
                kept.append(_stored(bench) - held)
    return [
        Figure("with the file", "jobs/s", tuple(rates_with), "the first job copies the file to the node"),
        Figure("without it", "jobs/s", tuple(rates_without)),
        Figure("storing it", "MB/s", tuple(stores)),
        Figure("read by nodes", "MB", tuple(reads), f"{MARKET_MB} is once for all jobs"),
        Figure("more on disk", "MB", tuple(kept), "in the blob store and in the node's copy"),
    ]


WORKLOAD = Workload(f"{JOBS:,} jobs that share a market-data file of {MARKET_MB} MB, on one node", _measure)
