"""Workload 5: large inputs and results, compared with `cp` to the same disk, and the growth of each tier's memory."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from bench.figures import Figure, Plan
from bench.grid import BenchGrid, grid
from bench.tiers import growth
from bench.workloads import Workload

MB = 1_000_000
FILES = {1: 20, 10: 5, 100: 2}
"""Sizes in MB, and how many files of each size are moved in a round."""
UP, DOWN, ALL = "MB/s in", "MB/s out", "MB/s, both ways and the pricer's own copy"
GREW = "MB grown at most"


def _random_file(path: Path, megabytes: int) -> Path:
    """A file of random bytes, which a ZIP cannot compress and the blob store does not have yet."""
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(MB))
    return path


def _copied(path: Path, to: Path) -> float:
    """MB/s of `cp` and an fsync of the copy."""
    began = time.perf_counter()
    subprocess.run(["cp", str(path), str(to)], check=True)
    handle = os.open(to, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)
    seconds = time.perf_counter() - began
    to.unlink()
    return path.stat().st_size / MB / seconds


def _moved(bench: BenchGrid, path: Path, to: Path) -> tuple[float, float, float]:
    """MB/s of the submit, of fetching the result, and of both with the job."""
    began = time.perf_counter()
    job = bench.client.submit(path)
    acknowledged = time.perf_counter()
    while not job.done():
        time.sleep(0.005)
    ended = time.perf_counter()
    job.download(to)
    fetched = time.perf_counter()
    size = path.stat().st_size / MB
    assert to.stat().st_size > path.stat().st_size
    to.unlink()
    return size / (acknowledged - began), size / (fetched - ended), size / (fetched - began)


def _measure(plan: Plan) -> list[Figure]:
    sizes = {size: files for size, files in FILES.items() if plan.size >= 1 or size == 1}
    found: dict[tuple[str, str], list[float]] = {}
    tiers: dict[tuple[str, str], list[float]] = {}
    with grid({"copy": {"command": ["cp", "{input}", "result.bin"]}}, slots=plan.at_once) as bench:
        _moved(bench, _random_file(plan.scratch / "first", 1), plan.scratch / "first.zip")
        for number in range(plan.rounds):
            for size, files in sizes.items():
                sources = [_random_file(plan.scratch / f"{number}-{size}-{at}", size) for at in range(files)]
                with growth(bench.pid) as grew:
                    for source in sources:
                        rates = _moved(bench, source, plan.scratch / "fetched")
                        copied = _copied(source, plan.scratch / "copied")
                        found.setdefault((f"cp, {size} MB", "MB/s with fsync"), []).append(copied)
                        for what, rate in zip((UP, DOWN, ALL), rates, strict=True):
                            found.setdefault((f"raygrid, {size} MB", what), []).append(rate)
                        source.unlink()
                for tier, more in grew.items():
                    tiers.setdefault((f"{tier}, {size} MB", GREW), []).append(more / MB)
    notes = {
        UP: "submit until acknowledged, on disk with fsync",
        DOWN: "from the end of the job until the ZIP is a file, without fsync",
        GREW: "peak resident memory over that before, shared memory included",
    }
    return [Figure(of, what, tuple(each), notes.get(what, "")) for (of, what), each in (found | tiers).items()]


WORKLOAD = Workload("inputs and results of 1, 10 and 100 MB, one job at a time", _measure)
