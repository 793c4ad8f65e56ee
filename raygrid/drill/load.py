"""Load on a running grid: clients that submit without a pause, wait for each result, and hash it.

They use the client library over HTTP, including its retries with the same job ids. What they see is recorded in a
`ClientHistory`; the clock is that of the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from raygrid.client import AsyncClient, JobStatus, Result
from raygrid.client.options import new_id
from raygrid.client.result import MANIFEST, STDERR, STDOUT
from raygrid.drill.history import ClientHistory
from raygrid.drill.recorder import EntryRequest, RequestRecorder
from raygrid.errors import (
    JobCancelledError,
    JobFailedError,
    JobNotFoundError,
    RaygridError,
    ResultExpiredError,
    WaitTimeoutError,
)
from raygrid.models import JobState

INPUTS = tuple(f"input {number} of a drill: {'abcdefgh'[number] * 64}\n".encode() for number in range(8))
WAIT_S = 2.0
"""One wait for a result. A client leaves a silent entry after this time and the timeout."""
TIMEOUT_S = 3.0
MOST_OPEN = 64
"""Most unfinished jobs of the trickle, so that it does not flood a grid that makes no progress."""
REFERENCE_S = 60.0
ANSWER_S = 5.0  # how long a cancellation waits for answers to pending submits


@dataclass(slots=True)
class LoadJob:
    """A job of the load; times are those of the event loop's clock."""

    job_id: str
    submitted_at: float
    acknowledged_at: float | None = None
    ended_at: float | None = None


def result_digest(result: Result) -> str:
    """The digest of a result without its manifest and stderr, which differ between attempts."""
    digest = hashlib.sha256()
    digest.update(result.stdout_bytes)
    for name in sorted(set(result.files) - {STDOUT, STDERR, MANIFEST}):
        digest.update(f"\0{name}\0".encode())
        digest.update(result.read(name))
    return digest.hexdigest()


def _attempt_of(result: Result) -> int | None:
    attempt = result.manifest.get("attempt")
    return attempt if isinstance(attempt, int) else None


def _now() -> float:
    return asyncio.get_running_loop().time()


class ClientLoad:
    """Clients that keep a grid busy.

    Args:
        urls: entries of the grid; clients begin at different ones, and use the next one when one fails.
        api_key: the key, if the grid requires one.
        pricer: the pricer to run.
        steady: how many jobs are always unfinished.
        trickle_per_s: further jobs per second, independent of the ends of others.
        expected: digest of the result by digest of the input, from `reference`.
        retry_s: how long a failed request is repeated before it counts as a client error.
        transport: makes a client's HTTP transport; tests pass fakes.
        plain_http: see `Client`.
    """

    def __init__(
        self,
        urls: Sequence[str],
        api_key: str | None,
        pricer: str,
        *,
        steady: int,
        trickle_per_s: float = 10.0,
        expected: Mapping[str, str] | None = None,
        retry_s: float = 60.0,
        transport: Callable[[], httpx.AsyncBaseTransport] | None = None,
        plain_http: bool | None = None,
    ) -> None:
        self.history = ClientHistory()
        self.batch_id = f"drill-{new_id()}"
        self.jobs: dict[str, LoadJob] = {}
        self.tries: list[EntryRequest] = []
        self.client_errors = 0
        self._pricer = pricer
        self._steady = steady
        self._pause_s = 1 / trickle_per_s if trickle_per_s > 0 else None
        self._expected = expected or {}
        self._stop = asyncio.Event()
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._asking = 0  # pending submits
        self._numbers = itertools.count()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        make = transport or (lambda: httpx.AsyncHTTPTransport(limits=limits))
        self._clients = [
            AsyncClient(
                [*urls[first:], *urls[:first]],
                api_key,
                timeout=TIMEOUT_S,
                transport=RequestRecorder(make(), self.tries.append),
                retry_s=retry_s,
                plain_http=plain_http,
            )
            for first in (number % len(urls) for number in range(max(2, len(urls))))
        ]
        self._turn = itertools.cycle(self._clients)

    async def reference(self) -> dict[str, str]:
        """Run every input once on a healthy grid; returns the digest of the result by the digest of the input.

        Raises:
            RaygridError: a job failed.
        """
        jobs = {new_id(): data for data in INPUTS}
        posted = await self._clients[0].map(jobs, pricer=self._pricer)
        for error in posted.refused.values():
            raise error
        found = {}
        async with asyncio.timeout(REFERENCE_S):
            for job_id, data in jobs.items():
                result = await self._clients[0].job(job_id).result(REFERENCE_S)
                found[_digest(data)] = result_digest(result)
        return found

    def start(self) -> None:
        """Begin to submit."""
        for _ in range(self._steady):
            self._run(self._one_after_the_other())
        if self._pause_s is not None:
            self._run(self._trickle(self._pause_s))

    def stop(self) -> None:
        """Submit no more jobs; submitted ones are followed to their ends."""
        self._stop.set()

    async def drained(self, within_s: float) -> bool:
        """Wait until every job has ended and its result was read; False if that took longer."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            return not late
        return True

    async def close(self) -> None:
        """Stop all clients and close their connections; submitted jobs continue."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()

    async def cancel(self) -> None:
        """Submit no more jobs, and cancel the unfinished ones."""
        self.stop()
        await self.until(lambda: not self._asking, ANSWER_S)  # a pending submit could arrive after the cancellation
        if any(job.acknowledged_at is not None for job in self.jobs.values()):
            await self._clients[0].cancel_batch(self.batch_id)

    @property
    def open_jobs(self) -> int:
        """The number of jobs that were submitted and not seen to end."""
        return sum(job.ended_at is None for job in self.jobs.values())

    @property
    def ended(self) -> int:
        """The number of jobs that were seen to end."""
        return len(self.jobs) - self.open_jobs

    async def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait until a condition holds, which is checked whenever a job ends; False if that takes longer."""
        deadline = _now() + within_s
        while not condition():
            left_s = deadline - _now()
            if left_s <= 0:
                return False
            self._news.clear()
            try:
                async with asyncio.timeout(min(0.1, left_s)):
                    await self._news.wait()
            except TimeoutError:
                continue
        return True

    async def statuses(self, state: str | None = None) -> dict[str, JobStatus]:
        """The states of this load's jobs as the grid reports them; they are recorded in the history."""
        asked_at = _now()
        found = {each.job_id: each async for each in self._clients[0].jobs(state=state, batch=self.batch_id)}
        at = _now()
        for status in found.values():
            if status.job_id in self.jobs:
                self.history.saw(status.job_id, status.state, at, asked_at)
        return found

    async def read_again(self, job_ids: Sequence[str]) -> None:
        """Read results once more, through other clients, and record them in the history."""
        clients = itertools.cycle(self._clients[1:])
        gate = asyncio.Semaphore(8)

        async def read(job_id: str, client: AsyncClient) -> None:
            async with gate:
                await self._read(client, job_id, WAIT_S)

        await asyncio.gather(*(read(job_id, next(clients)) for job_id in job_ids))

    def _run(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one_after_the_other(self) -> None:
        while not self._stop.is_set():
            if not await self._one():
                await asyncio.sleep(0.2)  # a pause after a failed request

    async def _trickle(self, pause_s: float) -> None:
        while not self._stop.is_set():
            if self.open_jobs < MOST_OPEN:
                self._run(self._one())
            await asyncio.sleep(pause_s)

    async def _one(self) -> bool:
        """Submit one job and follow it to its end; False if the grid did not accept it."""
        client = next(self._turn)
        data = INPUTS[next(self._numbers) % len(INPUTS)]
        job = LoadJob(new_id(), _now())
        self.jobs[job.job_id] = job
        digest = _digest(data)
        self.history.submitted(job.job_id, digest, expected=self._expected.get(digest))
        self._asking += 1
        try:
            posted = await client.map({job.job_id: data}, batch_id=self.batch_id, pricer=self._pricer)
            for refusal in posted.refused.values():
                raise refusal
        except RaygridError as error:
            self._failed(job.job_id, f"submit: {error}")
            return False
        finally:
            self._asking -= 1
        job.acknowledged_at = _now()
        self.history.acknowledged(job.job_id, job.acknowledged_at)
        while not await self._read(client, job.job_id, WAIT_S):
            continue
        job.ended_at = _now()
        self._news.set()
        return True

    async def _read(self, client: AsyncClient, job_id: str, wait_s: float) -> bool:
        """Wait once for a result; False if the job may still end."""
        asked_at = _now()
        try:
            result = await client.job(job_id).result(wait_s)
        except WaitTimeoutError:
            return False
        except JobFailedError:
            self.history.saw(job_id, JobState.FAILED, _now(), asked_at)
        except JobCancelledError:
            self.history.saw(job_id, JobState.CANCELLED, _now(), asked_at)
        except (JobNotFoundError, ResultExpiredError) as error:
            self.history.error(job_id, f"result: {error}", _now())
        except RaygridError as error:
            self._failed(job_id, f"result: {error}")
            return False
        else:
            self.history.result(job_id, result_digest(result), _now(), attempt=_attempt_of(result))
            self.history.saw(job_id, JobState.DONE, _now(), asked_at)
        return True

    def _failed(self, job_id: str, what: str) -> None:
        """Count a request that failed in spite of retries."""
        self.client_errors += 1
        self.history.error(job_id, what, _now())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
