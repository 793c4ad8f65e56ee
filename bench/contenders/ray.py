"""Ray tasks that call subprocess, on a separate Ray cluster."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.contenders.contender import Contender, Run, installed
from bench.contenders.spawn import require_all_well, spawn
from raygrid.system.ray_environment import NO_UPLOADS


@contextmanager
def _opened(command: Sequence[str], at_once: int) -> Iterator[Run]:
    # As for the Ray of a local grid: no statistics, a new token, workers not at nice 15.
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_enable_metrics_collection="0",
        RAY_worker_niceness="0",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        **NO_UPLOADS,
    )
    import ray

    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as home:
        ray.init(
            address="local",
            num_cpus=at_once,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=200 * 1024**2,
            _temp_dir=home,
        )
        task = ray.remote(spawn)

        def run(jobs: int, payload: bytes) -> float:
            began = time.perf_counter()
            codes = ray.get([task.remote(command, payload) for _ in range(jobs)])
            seconds = time.perf_counter() - began
            require_all_well(codes, jobs)
            return seconds

        try:
            yield run
        finally:
            ray.shutdown()


CONTENDER = Contender(
    "ray.init with as many CPUs as processes, one task a job, ray.get of all",
    "a queue that outlives its driver, results beyond exit codes, input files, job directories, limits",
    lambda: installed("ray"),
    _opened,
)
