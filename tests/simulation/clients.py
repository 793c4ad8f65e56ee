"""Clients of a simulation: they submit with retries until the job is acknowledged, then look until it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, TypeVar

from raygrid.errors import BusyError, ConflictError, JobNotFoundError, RaygridError
from raygrid.models import BlobSlice, DoneJob, JobSpec, NewJob, StoredJob
from raygrid.transport.ports import POLL_SLACK_S
from tests.simulation.parents import SimulatedParent

Answer = TypeVar("Answer")

if TYPE_CHECKING:
    from tests.simulation.grid import Grid

HOST = "client"
SUBMIT_TIMEOUT_S = 8.0
WAIT_S = 5.0

# Outcomes of pricers: mostly an answer; else a failure, a retried exit code, too much memory beside others, or the
# death of the node's agent.
KINDS = ("ok",) * 15 + ("large",) + ("fail",) * 2 + ("again",) * 2


def new_job(job_id: str, kind: str, seconds: float, *, fingerprint: str = "", priority: int = 0) -> NewJob:
    """A job whose pricer does as its arguments say."""
    spec = JobSpec(
        job_id, "sim", "1", BlobSlice("", 0, 1, "x"), args=(kind, f"{seconds:.3f}"), priority=priority, inline=b"x"
    )
    return NewJob(spec, "", fingerprint or f"{job_id} {kind}")


class Clients:
    """All clients of a simulation."""

    def __init__(self, grid: Grid, random: Random) -> None:
        self._grid, self._random = grid, random
        self._unfinished = 0

    @property
    def done(self) -> bool:
        """Whether every client has seen the end of its jobs."""
        return self._unfinished == 0

    def open(self, jobs: int, within_s: float) -> None:
        """Let clients submit that many jobs, one by one and in batches, in the course of some seconds."""
        random, grid = self._random, self._grid
        killers = random.choice((0, 0, 0, 1)) if not grid.calm else 0
        number = 0
        while number < jobs:
            at_s = within_s * random.random() ** 1.5
            count = min(jobs - number, random.choice((1, 1, 1, 1, 4, 8)))
            batch = []
            for _ in range(count):
                kind = "kill" if number < killers else random.choice(KINDS)
                seconds = random.choice((0.02, 0.1, 0.4, 0.4, 1.0, 1.0, 3.0)) * (0.5 + random.random())
                job = new_job(f"j{number:02}", kind, seconds, priority=random.choice((0, 0, 0, 5)))
                grid.kinds[job.spec.job_id] = kind
                batch.append(job)
                number += 1
            self._unfinished += 1
            name = f"b{number:02}" if count > 1 else None
            grid.client.spawn(self._run(batch, name, at_s))

    async def _run(self, jobs: list[NewJob], batch_id: str | None, at_s: float) -> None:
        random = self._random
        await asyncio.sleep(at_s)
        await self._submit(jobs, batch_id)
        if random.random() < 0.1:
            await self._conflict(jobs[0])
        if random.random() < 0.15:
            await asyncio.sleep(2 * random.random())
            await self._cancel([job.spec.job_id for job in jobs if random.random() < 0.6])
        for job in jobs:
            await self._until_end(job.spec.job_id)
        if random.random() < 0.2:
            await self._submit(jobs, batch_id)  # sent again after its end, it changes nothing
            await self._until_end(jobs[0].spec.job_id)
        self._unfinished -= 1

    async def _submit(self, jobs: list[NewJob], batch_id: str | None) -> None:
        ids = [job.spec.job_id for job in jobs]

        def submit(parent: SimulatedParent) -> Awaitable[object]:
            return parent.submit(jobs[0]) if batch_id is None else parent.submit_batch(batch_id, jobs)

        for job in jobs:
            self._grid.history.submitted(job.spec.job_id, job.fingerprint)
        while True:
            try:
                await self._ask("submit", submit, SUBMIT_TIMEOUT_S)
                break
            except BusyError:
                await asyncio.sleep(0.2 + self._random.random())
            except RaygridError as error:
                self._grid.watch.fail("same jobId, same job", f"jobs {ids} were refused: {error!r}")
                return
        self._grid.trace(f"acknowledged {' '.join(ids)}")
        for job in jobs:
            self._grid.watch.acked(job.spec.job_id, job.fingerprint)
            self._grid.history.acknowledged(job.spec.job_id, self._grid.loop.time(), job.fingerprint)
        if self._random.random() < 0.1:  # a client that checks the answer
            await self._ask_until("submit", submit, SUBMIT_TIMEOUT_S)

    async def _conflict(self, job: NewJob) -> None:
        other = new_job(job.spec.job_id, "ok", 0.1, fingerprint="another input")
        for _ in range(5):
            try:
                await self._ask("submit", lambda parent: parent.submit(other), SUBMIT_TIMEOUT_S)
            except ConflictError:
                return
            except BusyError:
                await asyncio.sleep(0.5)
                continue
            self._grid.watch.fail("same jobId, same job", f"another input was taken under the id {job.spec.job_id}")
            return

    async def _cancel(self, job_ids: list[str]) -> None:
        if not job_ids:
            return
        self._grid.cancelled.update(job_ids)
        self._grid.trace(f"cancel {' '.join(job_ids)}")
        await self._ask_until("cancel", lambda parent: parent.cancel(job_ids), SUBMIT_TIMEOUT_S)

    async def _until_end(self, job_id: str) -> None:
        while True:

            def wait(parent: SimulatedParent) -> Awaitable[StoredJob | DoneJob]:
                return parent.wait(job_id, WAIT_S)

            asked_at = self._grid.loop.time()
            try:
                job = await self._ask("wait", wait, WAIT_S + POLL_SLACK_S)
            except BusyError:
                await asyncio.sleep(0.5)
                continue
            except JobNotFoundError:
                self._grid.watch.fail("acknowledged jobs are stored", f"a parent does not know job {job_id}")
                return
            self._grid.watch.seen(job, asked_at)
            if job.state.is_terminal:
                return

    async def _ask_until(
        self, what: str, ask: Callable[[SimulatedParent], Awaitable[object]], timeout_s: float
    ) -> None:
        while True:
            try:
                await self._ask(what, ask, timeout_s)
            except BusyError:
                await asyncio.sleep(0.5)
            else:
                return

    async def _ask(self, what: str, ask: Callable[[SimulatedParent], Awaitable[Answer]], timeout_s: float) -> Answer:
        part = self._random.choice(self._grid.parent_parts)
        answer: Answer = await self._grid.network.call(HOST, part, what, ask, timeout_s)
        return answer
