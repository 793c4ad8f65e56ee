"""How soon another process notices a new job in PostgreSQL, and at what cost: polling against LISTEN/NOTIFY.

All watchers see the same inserts, at random times; the idle cost of each watcher is measured alone. A trigger notifies,
so that an insert needs no further round trip; the cost of the trigger is measured in alternation. Parents notify
leaders of every job, and leaders also scan each second: this measures how soon a job is found whose message was lost.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the tests' PostgreSQL server

import asyncpg  # type: ignore[import-untyped]

from raygrid.models import BlobSlice, JobSpec, NewJob
from raygrid.store import SqlStore
from tests.support.postgres import Postgres

GROUP = "rack-a"
TRIGGER = """
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NOTIFY jobs; RETURN NULL; END $$;
CREATE TRIGGER tell AFTER INSERT ON jobs FOR EACH STATEMENT EXECUTE FUNCTION tell();
"""
Noticed = Callable[[int], None]


def new(job_id: str) -> NewJob:
    """A small job."""
    return NewJob(JobSpec(job_id, "p", "1", BlobSlice("", 0, 2, "d"), inline=b"{}"), GROUP, "f")


@asynccontextmanager
async def polling(url: str, every_s: float, noticed: Noticed):  # type: ignore[no-untyped-def]  # yields nothing
    """Counts the queued jobs at an interval, as a leader's scan does."""
    store = SqlStore(url)
    await store.open()

    async def poll() -> None:
        while True:
            noticed(await store.count_queued(GROUP))
            await asyncio.sleep(every_s)

    task = asyncio.create_task(poll())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


@asynccontextmanager
async def listening(url: str, noticed: Noticed):  # type: ignore[no-untyped-def]  # yields nothing
    """Counts the queued jobs at each notification, which comes over a separate connection."""
    store = SqlStore(url)
    await store.open()
    notified = asyncio.Event()
    connection = await asyncpg.connect(url)
    await connection.add_listener("jobs", lambda *_: notified.set())

    async def count() -> None:
        while True:
            await notified.wait()
            notified.clear()
            noticed(await store.count_queued(GROUP))

    task = asyncio.create_task(count())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close()
        await store.close()


def watcher(name: str, url: str, noticed: Noticed) -> Any:
    """The watcher with a name."""
    return listening(url, noticed) if name == "LISTEN" else polling(url, float(name.split()[1]), noticed)


WATCHERS = ("poll 1.0 s", "poll 0.2 s", "LISTEN")


async def latencies(url: str, store: SqlStore, samples: int) -> dict[str, list[float]]:
    """Seconds from the beginning of an insert until each watcher counted its job."""
    began: list[float] = []
    found: dict[str, list[float]] = {name: [] for name in WATCHERS}

    def noticing(name: str) -> Noticed:
        def noticed(count: int) -> None:
            for at in began[len(found[name]) : count]:
                found[name].append(time.perf_counter() - at)

        return noticed

    one, two, three = (watcher(name, url, noticing(name)) for name in WATCHERS)
    async with one, two, three:
        for number in range(samples):
            await asyncio.sleep(random.uniform(0.3, 1.3))
            began.append(time.perf_counter())
            await store.insert([new(f"latency-{number}")])
        while any(len(each) < samples for each in found.values()):  # noqa: ASYNC110 - the watchers set no event
            await asyncio.sleep(0.05)
    return found


async def idle_cost(url: str, server: Postgres, name: str, for_s: float) -> tuple[float, float]:
    """Transactions and milliseconds of this process's CPU per second, of an idle watcher."""
    transactions = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'"
    async with watcher(name, url, lambda count: None):
        await asyncio.sleep(1.5)
        before, cpu = int(await asyncio.to_thread(server.sql, transactions)), time.process_time()
        await asyncio.sleep(for_s)
        cpu = time.process_time() - cpu
        # The server's figures are written when a session goes idle for a while, or ends.
        await asyncio.sleep(1.5)
        count = int(await asyncio.to_thread(server.sql, transactions)) - before
    return count / (for_s + 1.5), 1_000 * cpu / for_s


async def insert_cost(store: SqlStore, server: Postgres, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of an insert of one job, without and with the trigger, alternating."""
    taken: dict[str, list[float]] = {"without notify": [], "with notify": []}
    for number in range(rounds):
        for name, values in taken.items():
            word = "ENABLE" if name == "with notify" else "DISABLE"
            await asyncio.to_thread(server.sql, f"ALTER TABLE jobs {word} TRIGGER tell")
            for each in range(20):
                began = time.perf_counter()
                await store.insert([new(f"{name}-{number}-{each}")])
                values.append(1_000 * (time.perf_counter() - began))
    return taken


def spread(values: list[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):>10.2f}{min(values):>10.2f}{max(values):>10.2f}"


async def measure(server: Postgres, samples: int, idle_s: float, rounds: int) -> None:
    """Measure and print."""
    url = server.url()
    store = SqlStore(url)
    await store.open()
    server.sql(TRIGGER)
    try:
        print(f"{'noticed after, ms':<20}{'median':>10}{'lowest':>10}{'highest':>10}   ({samples} inserts)")
        for name, values in (await latencies(url, store, samples)).items():
            print(f"{name:<20}{spread([1_000 * value for value in values])}")
        print(f"\n{'idle, each second':<20}{'transactions':>14}{'ms of CPU':>12}")
        for name in WATCHERS:
            transactions, cpu_ms = await idle_cost(url, server, name, idle_s)
            print(f"{name:<20}{transactions:>14.2f}{cpu_ms:>12.2f}")
        print(f"\n{'insert, ms':<20}{'median':>10}{'lowest':>10}{'highest':>10}   ({20 * rounds} inserts each)")
        for name, values in (await insert_cost(store, server, rounds)).items():
            print(f"{name:<20}{spread(values)}")
    finally:
        await store.close()


def main() -> None:
    """Run it on a new server, with every commit on disk."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--idle", type=float, default=8.0, help="seconds of idling measured for each watcher")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    server = Postgres(settings={"shared_buffers": "128MB"})
    try:
        server.open()
        asyncio.run(measure(server, arguments.samples, arguments.idle, arguments.rounds))
    finally:
        server.close()


if __name__ == "__main__":
    main()
