"""Dask distributed: a scheduler and workers as processes on this machine, one `client.map` a run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.contenders.contender import Contender, Run, installed
from bench.contenders.spawn import require_all_well, spawn
from raygrid.system.processors import usable_processors

_BATCH = 500


@contextmanager
def _opened(command: Sequence[str], at_once: int) -> Iterator[Run]:
    from distributed import Client, LocalCluster

    # Threads, because a job releases the interpreter's lock while it waits; a process for each core, because spawning
    # holds the lock.
    processes = min(usable_processors(), at_once)
    with (
        tempfile.TemporaryDirectory(prefix="dask-", ignore_cleanup_errors=True) as home,
        LocalCluster(
            n_workers=processes,
            threads_per_worker=-(-at_once // processes),
            processes=True,
            dashboard_address=None,
            local_directory=home,
        ) as cluster,
        Client(cluster) as client,
    ):

        def run(jobs: int, payload: bytes) -> float:
            # Each job has its own input; with pure=False, Dask does not merge equal ones.
            began = time.perf_counter()
            futures = client.map(spawn, [command] * jobs, [payload] * jobs, pure=False, batch_size=_BATCH)
            codes = client.gather(futures)
            seconds = time.perf_counter() - began
            require_all_well(codes, jobs)
            return seconds

        yield run


CONTENDER = Contender(
    "LocalCluster, a process per core with threads, no dashboard; client.map in batches of 500",
    "a queue on disk, results beyond exit codes, input files, job directories, limits",
    lambda: installed("distributed"),
    _opened,
)
