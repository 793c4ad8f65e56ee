"""The grid itself: HTTP, job store, leader, agent; one batch for each run, each result fetched and read."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import raygrid
from bench.contenders.contender import Contender, Run
from bench.contenders.spawn import require_all_well
from bench.grid import grid


@contextmanager
def _opened(command: Sequence[str], at_once: int) -> Iterator[Run]:
    with grid({"bench": {"command": list(command)}}, slots=at_once) as bench:

        def run(jobs: int, payload: bytes) -> float:
            began = time.perf_counter()
            codes = [result.manifest["exit_code"] for result in bench.client.map([payload] * jobs).results()]
            seconds = time.perf_counter() - began
            require_all_well(codes, jobs)
            return seconds

        yield run


CONTENDER = Contender(
    "a grid of one node on SQLite, Client.map, each result fetched and its manifest read",
    "",
    lambda: raygrid.__version__,
    _opened,
)
