"""The job store of a simulation: one `MemoryStore` behind the network, which may be slow, away, or lose its answers.

Every transaction passes the observer before and after it is carried out, whether or not the sender still waits: what
counts is what is committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Protocol, TypeVar, cast

from raygrid.core.lease import Lease
from raygrid.models import StoredJob
from raygrid.store import JobStore
from tests.simulation.clock import Process
from tests.simulation.memory_store import MemoryStore
from tests.simulation.network import Network, Part

Answer = TypeVar("Answer")

TIMEOUT_S = 6.0
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)


class Observer(Protocol):
    """Observes what is committed."""

    def recorded(self, group_id: str, term: int, lease: Lease | None) -> None:
        """A leader's write was committed; `lease` is the group's current one."""
        ...

    def changed(self, before: StoredJob | None, after: StoredJob) -> None:
        """A transaction left a job like this."""
        ...

    def leased(self, before: Lease | None, lease: Lease) -> None:
        """A lease was given or renewed."""
        ...


class Database:
    """The one job store of the grid, with its clock and its disk.

    Attributes:
        memory: the store itself.
        slow_s: longest further time that a transaction takes.
        clock_offset_s: how far its clock is off.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random, make: type[MemoryStore]) -> None:
        self._loop = loop
        self._random = random
        self.slow_s = 0.0
        self.clock_offset_s = 0.0
        self.memory = make(self._now)
        self.observer: Observer | None = None

    def _now(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time() + self.clock_offset_s)

    def catch_up(self, step_s: float) -> None:
        """Put the clock forward."""
        self.clock_offset_s += step_s

    def delay_s(self) -> float:
        """How long the next transaction takes beyond its way through the network."""
        return self.slow_s * self._random.random() if self.slow_s else 0.0

    def carry_out(self, name: str, args: Sequence[Any], options: dict[str, Any]) -> Any:
        """Carry out a transaction: at once, whole, or not at all."""
        observer = self.observer
        if observer is None:
            return finished(getattr(self.memory, name)(*args, **options))
        leased_before = self.lease(args[0]) if name == "acquire_lease" else None
        before = None if name in READS else self.jobs()
        answer = finished(getattr(self.memory, name)(*args, **options))
        if name == "record":
            observer.recorded(args[0], args[1], self.lease(args[0]))
        elif name == "acquire_lease" and answer is not None:
            observer.leased(leased_before, answer)
        if before is not None:
            for job_id, job in self.jobs().items():
                was = before.get(job_id)
                if was is not job:
                    observer.changed(was, job)
        return answer

    def jobs(self) -> dict[str, StoredJob]:
        """The current state of every job."""
        return {job_id: row.job for job_id, row in self.memory._rows.items()}

    def failures(self, job_id: str) -> int:
        """Attempts of a job that count towards its limit."""
        return self.memory._rows[job_id].counts.failures

    def lease(self, group_id: str) -> Lease | None:
        """A group's current lease."""
        return self.memory._leases.get(group_id)

    def expires_in_s(self, lease: Lease) -> float:
        """How long a lease lives on."""
        return (lease.expires_at - self._now()).total_seconds()


READS = frozenset(
    {"open", "close", "get", "queued", "running", "count_queued", "queue_position", "jobs", "batch", "changed"}
    | {
        "unfinished_of_batch",
        "acquire_lease",
        "release_lease",
        "leases",
        "note_hand_over",
        "drains",
        "put_drain",
        "delete_drain",
    }
    | {"agree", "agreed", "get_data", "blobs_in_use", "unfinished", "unfinished_of", "count_unfinished", "reusable"}
    | {"probe", "put_definitions", "definitions", "purge_definitions", "batches", "batches_of"}
)


def finished(work: Coroutine[Any, Any, Answer]) -> Answer:
    """What a coroutine gives that never waits: a transaction of the memory store."""
    try:
        work.send(None)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    raise RuntimeError("a transaction of the memory store waited")


class _RemoteStore:
    """The job store as one process reaches it."""

    is_single_machine = False

    def __init__(self, process: Process, host: str, network: Network, part: Part[Database], database: Database) -> None:
        self._process, self._host, self._network = process, host, network
        self._part, self._database = part, database

    async def open(self) -> None:
        """Connect."""
        await self._ask("agreed", ("blobs",), {})

    async def close(self) -> None:
        """Nothing to close."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def method(*args: Any, **options: Any) -> Any:
            return await self._ask(name, args, options)

        return method

    def _ask(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> asyncio.Future[Any]:
        delay_s = self._database.delay_s()

        def ask(database: Database) -> Any:
            return database.carry_out(name, args, options)

        return self._network.call(self._host, self._part, name, ask, TIMEOUT_S, delay_s)


def store_for(process: Process, host: str, network: Network, part: Part[Database], database: Database) -> JobStore:
    """The job store as a process on a host reaches it."""
    return cast(JobStore, _RemoteStore(process, host, network, part, database))
