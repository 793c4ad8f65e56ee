"""A bare pool of Python threads that spawn."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from bench.contenders.contender import Contender, Run
from bench.contenders.spawn import require_all_well, spawn


@contextmanager
def _opened(command: Sequence[str], at_once: int) -> Iterator[Run]:
    with ThreadPoolExecutor(at_once) as pool:

        def run(jobs: int, payload: bytes) -> float:
            began = time.perf_counter()
            codes = list(pool.map(lambda _: spawn(command, payload), range(jobs)))
            seconds = time.perf_counter() - began
            require_all_well(codes, jobs)
            return seconds

        yield run


CONTENDER = Contender(
    "subprocess.call in a ThreadPoolExecutor",
    "a queue that outlives it, other machines, results, job directories, limits",
    lambda: f"Python {platform.python_version()}",
    _opened,
)
