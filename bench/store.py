"""Jobs per second of the job store: SQLite beside PostgreSQL, both with every commit on disk, in the same run.

A job is inserted, recorded as running and recorded as done, in blocks as a busy grid makes them. The stores take turns,
so that other load on the machine affects both; compare the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' PostgreSQL server

from raygrid.core.attempt_counts import AttemptCounts
from raygrid.models import AttemptId, AttemptReport, BlobSlice, JobSpec, JobState, JobUpdate, NewJob, Outcome
from raygrid.store import SqlStore
from tests.support.postgres import Postgres

STEPS = ("insert", "running", "done", "get")


def new(job_id: str) -> NewJob:
    """A job with an inline input of 1 KB."""
    place, inline = BlobSlice("", 0, 1024, "d" * 64), b"x" * 1024
    spec = JobSpec(job_id, "p", "1", place, inline=inline, definition="e" * 32)
    return NewJob(spec, "rack-a", "f" * 64)


def running(job_id: str) -> JobUpdate:
    """The record of its start."""
    return JobUpdate(job_id, JobState.RUNNING, AttemptCounts(1), "rack-a-1", datetime.now(UTC))


def done(job_id: str) -> JobUpdate:
    """The record of its end."""
    now = datetime.now(UTC)
    result = BlobSlice("results/2026/03/01/pack", 0, 900, "d" * 64)
    report = AttemptReport(AttemptId(job_id, 1), Outcome.EXITED, 0, result=result, started_at=now, ended_at=now)
    return JobUpdate(job_id, JobState.DONE, AttemptCounts(1), "rack-a-1", now, report=report)


async def once(store: SqlStore, label: str, jobs: int, block: int) -> dict[str, float]:
    """Jobs per second of each step."""
    names = [f"{label}-{number}" for number in range(jobs)]
    blocks = [names[start : start + block] for start in range(0, jobs, block)]
    lease = await store.acquire_lease("rack-a", "bench", 3600)
    assert lease is not None
    steps: dict[str, Callable[[Sequence[str]], Awaitable[object]]] = {
        "insert": lambda part: store.insert([new(name) for name in part], label),
        "running": lambda part: store.record("rack-a", lease.term, [running(name) for name in part]),
        "done": lambda part: store.record("rack-a", lease.term, [done(name) for name in part]),
        "get": store.get,
    }
    rates = {}
    for step, call in steps.items():
        began = time.perf_counter()
        for part in blocks:
            await call(part)
        rates[step] = jobs / (time.perf_counter() - began)
    summary = await store.batch(label)
    assert summary is not None
    assert summary.counts == {JobState.DONE: jobs}
    rates["whole life"] = 1 / sum(1 / rates[step] for step in STEPS[:3])
    return rates


@contextmanager
def servers(directory: str):  # type: ignore[no-untyped-def]  # a generator of urls by name
    """The URLs of the stores."""
    server = Postgres(settings={"shared_buffers": "128MB"})
    try:
        server.open()
        yield {"SQLite": f"sqlite+aiosqlite:///{directory}/jobs.db", "PostgreSQL": server.url()}
    finally:
        server.close()


async def measure(urls: dict[str, str], jobs: int, blocks: Sequence[int], rounds: int) -> dict[str, list[float]]:
    """Rates by store, block and step, one for each round; a first round warms up and does not count."""
    stores = {name: SqlStore(url) for name, url in urls.items()}
    rates: dict[str, list[float]] = {}
    for store in stores.values():
        await store.open()
    for number in range(rounds + 1):
        for block in blocks:
            for name, store in stores.items():
                count = min(jobs, 50 * block)
                for step, rate in (await once(store, f"{number}-{block}", count, block)).items():
                    if number:
                        rates.setdefault(f"{step:<12}{block:>5}  {name}", []).append(rate)
    for store in stores.values():
        await store.close()
    return rates


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", default="bench-store.json", help="where the figures go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raygrid-bench-") as scratch, servers(scratch) as urls:
        rates = asyncio.run(measure(urls, arguments.jobs, arguments.blocks, arguments.rounds))
    print(f"{'step':<12}{'block':>5}  {'store':<12}{'median/s':>10}{'lowest':>10}{'highest':>10}")
    for name, values in sorted(rates.items()):
        print(f"{name:<31}{statistics.median(values):>10.0f}{min(values):>10.0f}{max(values):>10.0f}")
    Path(arguments.json).write_text(json.dumps({"jobs": arguments.jobs, "jobs_per_s": rates}, indent=1))


if __name__ == "__main__":
    main()
