"""Load on a running grid, as its clients make it: they submit without a pause, wait for each result, and hash it.

Everything goes through the client library over HTTP, retries with the same job ids included. What clients see is
recorded in a `ClientHistory`; the clock is that of the event loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx

from raygrid.client import AsyncClient, JobStatus, Result
from raygrid.client.options import new_id
from raygrid.client.result import MANIFEST, STDERR, STDOUT
from raygrid.drill.entries import Entries, EntryRequest
from raygrid.drill.history import ClientHistory
from raygrid.errors import (
    ConflictError,
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
"""One wait for a result. A silent entry is left after this and the timeout; a finished job is known at once."""
TIMEOUT_S = 3.0
MOST_OPEN = 64
"""Most unfinished jobs: a grid that stands still must not be flooded with requests for more."""
REFERENCE_S = 60.0
ANSWER_S = 5.0  # after this long a cancellation does not wait for answers to what was submitted before


@dataclass(slots=True)
class LoadJob:
    """A job of the load; instants are those of the event loop's clock."""

    job_id: str
    submitted_at: float
    acknowledged_at: float | None = None
    ended_at: float | None = None


def result_digest(result: Result) -> str:
    """The digest of a pricer's answer, without what differs between attempts: its manifest and its stderr."""
    digest = hashlib.sha256()
    digest.update(result.stdout_bytes)
    for name in sorted(set(result.files) - {STDOUT, STDERR, MANIFEST}):
        digest.update(f"\0{name}\0".encode())
        digest.update(result.read(name))
    return digest.hexdigest()


def attempt_of(result: Result) -> int | None:
    """The attempt that a result names; None if it names none."""
    attempt = result.manifest.get("attempt")
    return attempt if isinstance(attempt, int) else None


class ClientLoad:
    """Clients that keep a grid busy.

    Args:
        urls: entries of the grid; clients begin at different ones, and go on to the next when one fails.
        api_key: the key, where the grid wants one.
        pricer: the pricer to run.
        steady: how many jobs are always unfinished.
        trickle_per_s: further jobs a second, submitted whatever becomes of the others.
        expected: digest of the result by digest of the input, from `reference`.
        retry_s: seconds in which a request that fails is tried again before it counts as a client's error.
        transport: makes what carries a client's requests; tests put fakes here.
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
        self._tasks: set[asyncio.Task[None]] = set()
        self._asking = 0  # jobs that were sent and not answered yet
        self._numbers = itertools.count()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        make = transport or (lambda: httpx.AsyncHTTPTransport(limits=limits))
        self._clients = [
            AsyncClient(
                urls[0],
                api_key,
                timeout=TIMEOUT_S,
                transport=Entries(urls, first, self.tries.append, make()),
                retry_s=retry_s,
            )
            for first in range(max(2, len(urls)))
        ]
        self._turn = itertools.cycle(self._clients)

    async def reference(self) -> dict[str, str]:
        """Run every input once, on a grid that is well, and give the digests of results by those of inputs.

        Raises:
            RaygridError: the pricer does not answer well.
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
        """Submit nothing more; what was submitted is followed to its end."""
        self._stop.set()

    async def drained(self, within_s: float) -> bool:
        """Wait until every job has ended and its result was read; gives whether that was so in time."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            return not late
        return True

    async def close(self) -> None:
        """End everything and give the sockets back; the grid goes on with what it has."""
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()

    async def cancel(self) -> None:
        """Submit nothing more, and ask the grid to cancel whatever has not ended."""
        self.stop()
        await self.until(lambda: not self._asking, ANSWER_S)  # the grid would take them after it has cancelled the rest
        if any(job.acknowledged_at is not None for job in self.jobs.values()):
            await self._clients[0].cancel_batch(self.batch_id)

    @property
    def open_jobs(self) -> int:
        """Jobs that were submitted and not seen to end."""
        return sum(job.ended_at is None for job in self.jobs.values())

    @property
    def ended(self) -> int:
        """Jobs that were seen to end."""
        return len(self.jobs) - self.open_jobs

    async def until(self, condition: Callable[[], bool], within_s: float) -> bool:
        """Wait until a condition holds, looking at it whenever something ends; gives whether it does."""
        deadline = asyncio.get_running_loop().time() + within_s
        while not condition():
            left_s = deadline - asyncio.get_running_loop().time()
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
        """The states of this load's jobs as the grid reports them, recorded as seen."""
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        found = {each.job_id: each async for each in self._clients[0].jobs(state=state, batch=self.batch_id)}
        at = clock()
        for status in found.values():
            if status.job_id in self.jobs:
                self.history.saw(status.job_id, status.state, at, asked_at)
        return found

    async def read_again(self, job_ids: Sequence[str]) -> None:
        """Read results once more, through other clients than before: they must be what they were."""
        clients = itertools.cycle(self._clients[1:])
        gate = asyncio.Semaphore(8)

        async def read(job_id: str, client: AsyncClient) -> None:
            async with gate:
                await self._read(client, job_id, WAIT_S)

        await asyncio.gather(*(read(job_id, next(clients)) for job_id in job_ids))

    def _run(self, work: object) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[call-overload]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one_after_the_other(self) -> None:
        while not self._stop.is_set():
            if not await self._one():
                await asyncio.sleep(0.2)  # a client whose request failed does not send the next in a hurry

    async def _trickle(self, pause_s: float) -> None:
        while not self._stop.is_set():
            if self.open_jobs < MOST_OPEN:
                self._run(self._single())
            await asyncio.sleep(pause_s)

    async def _single(self) -> None:
        await self._one()

    async def _one(self) -> bool:
        """Submit one job and follow it to its end; gives whether the grid took it."""
        clock = asyncio.get_running_loop().time
        client = next(self._turn)
        data = INPUTS[next(self._numbers) % len(INPUTS)]
        job = LoadJob(new_id(), clock())
        self.jobs[job.job_id] = job
        digest = _digest(data)
        self.history.submitted(job.job_id, digest, job.submitted_at, expected=self._expected.get(digest))
        self._asking += 1
        try:
            posted = await client.map({job.job_id: data}, batch_id=self.batch_id, pricer=self._pricer)
            for refusal in posted.refused.values():
                raise refusal
        except ConflictError:
            self.history.conflict(job.job_id, clock())
            self._failed(job.job_id, "its id is taken by another job")
            return False
        except RaygridError as error:
            self._failed(job.job_id, f"submit: {error}")
            return False
        finally:
            self._asking -= 1
        job.acknowledged_at = clock()
        self.history.acknowledged(job.job_id, job.acknowledged_at)
        while not await self._read(client, job.job_id, WAIT_S):
            continue
        job.ended_at = clock()
        self._news.set()
        return True

    async def _read(self, client: AsyncClient, job_id: str, wait_s: float) -> bool:
        """Wait once for a result; gives whether there is nothing more to wait for."""
        clock = asyncio.get_running_loop().time
        asked_at = clock()
        try:
            result = await client.job(job_id).result(wait_s)
        except WaitTimeoutError:
            return False
        except JobFailedError:
            self.history.saw(job_id, JobState.FAILED, clock(), asked_at)
        except JobCancelledError:
            self.history.saw(job_id, JobState.CANCELLED, clock(), asked_at)
        except (JobNotFoundError, ResultExpiredError) as error:
            self.history.error(job_id, f"result: {error}", clock())
        except RaygridError as error:
            self._failed(job_id, f"result: {error}")
            return False
        else:
            self.history.result(job_id, result_digest(result), clock(), attempt=attempt_of(result))
            self.history.saw(job_id, JobState.DONE, clock(), asked_at)
        return True

    def _failed(self, job_id: str, what: str) -> None:
        """A request failed in spite of retries."""
        self.client_errors += 1
        self.history.error(job_id, what, asyncio.get_running_loop().time())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


__all__ = ["INPUTS", "ClientLoad", "LoadJob", "attempt_of", "result_digest"]
