"""Streamed answers: the results of a batch as its jobs end, and state changes as server-sent events.

Both read the job store from a cursor; a client resumes from its last cursor at any parent. Reports of leaders only make
a stream read sooner. Each stream ends after a few minutes, so clients must be able to resume.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from urllib.parse import quote

from raygrid.core.access import Caller
from raygrid.errors import DamagedResultError, ResultExpiredError
from raygrid.models import JobState, StoredJob
from raygrid.parent.http.problems import problem_document
from raygrid.parent.http.schemas import job_status
from raygrid.parent.outflow import FREE, in_pieces
from raygrid.parent.results import gone
from raygrid.parent.service import LOOK_AGAIN_S, Parent
from raygrid.store import Changed

PAGE = 256
PAGE_BYTES = 4 * 1024**2
HEARTBEAT_S = 15.0
HEARTBEAT = b": still here\n\n"  # a comment of an event stream
# While changes continue, a stream reads the store at most every `PAUSE_S`. After a quiet time the first reads come
# sooner, from `FIRST_PAUSE_S` on and doubling, so that a few jobs are reported at once.
PAUSE_S = 0.05
FIRST_PAUSE_S = 0.004
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


class _Changes:
    """Waits for changes between reads of the store, until the stream's time is over or its reader's key has ended."""

    def __init__(self, parent: Parent, caller: Caller, wait_s: float, job_id: str | None = None) -> None:
        self._keys = parent.keys
        self._caller = caller
        self._waiters = parent.waiters
        self._job_id = job_id
        self._changed = self._waiters.watch_all() if job_id is None else self._waiters.watch_job(job_id)
        self._looked_at = asyncio.get_running_loop().time()
        self._pause_s = FIRST_PAUSE_S
        self._until = self._looked_at + wait_s

    @property
    def may_go_on(self) -> bool:
        """Whether the reader's key is still valid."""
        return self._keys.accepts(self._caller)

    @property
    def left_s(self) -> float:
        return self._until - asyncio.get_running_loop().time()

    def look(self) -> None:
        """Note that the store is read now; later changes wake the stream again."""
        self._changed.clear()
        self._looked_at = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        try:
            async with asyncio.timeout(max(0.0, min(LOOK_AGAIN_S, self.left_s))):
                await self._changed.wait()
        except TimeoutError:
            return
        since_s = asyncio.get_running_loop().time() - self._looked_at
        if since_s >= PAUSE_S:
            self._pause_s = FIRST_PAUSE_S
            return
        await asyncio.sleep(self._pause_s - since_s)
        self._pause_s = min(2 * self._pause_s, PAUSE_S)

    def close(self) -> None:
        self._waiters.forget(self._changed, self._job_id)


class _Unfinished:
    """Whether a batch still has unfinished jobs.

    Counting the jobs of a large batch each time would be the largest cost of a stream. Instead, one unfinished job is
    kept as proof and read again until it has ended.
    """

    def __init__(self, parent: Parent, batch_id: str) -> None:
        self._store = parent.store
        self._batch_id = batch_id
        self._proof: str | None = None

    async def none_left(self) -> bool:
        if self._proof is not None:
            job = (await self._store.get([self._proof])).get(self._proof)
            if job is not None and not job.state.is_terminal:
                return False
        self._proof = next(iter(await self._store.unfinished_of_batch(self._batch_id, 1)), None)
        return self._proof is None


async def _pages(
    parent: Parent, batch_id: str, cursor: int, changes: _Changes, *, ended_only: bool = False
) -> AsyncIterator[tuple[list[Changed], bool]]:
    """Pages of a batch's changed jobs; each with whether all jobs have ended and this page is the last."""
    unfinished = _Unfinished(parent, batch_id)
    finished = full = False
    while True:
        changes.look()
        if not full:
            # Before the page is read: jobs that have ended by now are in this page or the next ones.
            finished = await unfinished.none_left()
        page = await parent.store.changed(batch_id, cursor, PAGE, ended_only=ended_only)
        if page:
            cursor = page[-1].cursor
        if not changes.may_go_on:
            return
        full = len(page) == PAGE
        yield page, finished and not full
        if full:
            continue
        if finished or changes.left_s <= 0:
            return
        await changes.wait()


# --- results of a batch ---------------------------------------------------------------------------------------------


async def batch_results(
    parent: Parent, caller: Caller, batch_id: str, cursor: int, wait_s: float, boundary: str
) -> AsyncIterator[bytes | memoryview]:
    """A multipart/mixed body: a part for each ended job, then a part that states whether the batch is complete.

    The answers to one key share turns (`parent/outflow.py`).
    """
    complete = False
    with closing(_Changes(parent, caller, wait_s)) as changes:
        async for page, finished in _pages(parent, batch_id, cursor, changes, ended_only=True):
            complete = finished
            for piece in _by_size(page):
                async with parent.outflow.turn(caller.key, _size_of(piece)):
                    async for part in _short_parts(parent, piece, boundary):
                        yield part
                    part = b""  # else the last result would stay in memory while this waits
                    yield part  # waits until the last part is on its way
            if page:
                cursor = page[-1].cursor
    body = json.dumps({"complete": complete, "cursor": cursor}).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Raygrid-End": "complete" if complete else "more",
    }
    yield _head(boundary, headers) + body + f"\r\n--{boundary}--\r\n".encode()


async def _short_parts(parent: Parent, piece: list[Changed], boundary: str) -> AsyncIterator[bytes | memoryview]:
    async for chunk in _parts(parent, piece, boundary):
        for part in in_pieces(chunk):
            yield part


def _size_of(piece: list[Changed]) -> int:
    return sum(each.job.result.size for each in piece if each.job.result is not None)


def _by_size(page: list[Changed]) -> list[list[Changed]]:
    """Split a page so that the results of each piece fit into memory together; a large result is a piece of its own."""
    pieces: list[list[Changed]] = []
    size = 0
    for each in page:
        needs = each.job.result.size if each.job.result else 0
        if not pieces or size + needs > PAGE_BYTES:
            pieces.append([])
            size = 0
        pieces[-1].append(each)
        size += needs
    return pieces


async def _parts(parent: Parent, piece: list[Changed], boundary: str) -> AsyncIterator[bytes]:
    if len(piece) == 1 and parent.results.is_large(piece[0].job):
        each = piece[0]
        try:
            chunks = await parent.results.stream(each.job)
        except (ResultExpiredError, DamagedResultError) as error:
            yield _head(boundary, _result_headers(each, 0) | _problem_headers(error)) + b"\r\n"
            return
        yield _head(boundary, _result_headers(each, each.job.result.size if each.job.result else 0))
        async for chunk in chunks:
            yield chunk
        yield b"\r\n"
        return
    bodies = await parent.results.read([each.job for each in piece])
    joined = bytearray()
    is_little = _size_of(piece) <= FREE
    for each, found in zip(piece, bodies, strict=True):
        body = found if isinstance(found, bytes) else b""
        headers = _result_headers(each, len(body))
        if not isinstance(found, bytes) and each.job.result is not None:
            headers |= _problem_headers(found or gone(each.job))
        if is_little:
            joined += _head(boundary, headers) + body + b"\r\n"
            continue
        yield _head(boundary, headers)  # without a copy of the result
        yield body
        yield b"\r\n"
    if joined:
        yield bytes(joined)


def _result_headers(each: Changed, size: int) -> dict[str, str]:
    job = each.job
    headers = {
        **({"Content-Type": "application/zip", "ETag": f'"{job.result.digest}"'} if size and job.result else {}),
        "Content-Length": str(size),
        "Raygrid-Job-Id": job.job_id,
        "Raygrid-State": job.state.value,
        "Raygrid-Cursor": str(each.cursor),
        **({"Raygrid-Reused-From": job.reused_from} if job.reused_from is not None else {}),
    }
    if job.state is not JobState.DONE:
        headers["Raygrid-Reason"] = job.reason or ""
        headers["Raygrid-Message"] = quote(job.message or "")
        if job.exit_code is not None:
            headers["Raygrid-Exit-Code"] = str(job.exit_code)
    return headers


def _problem_headers(error: ResultExpiredError | DamagedResultError) -> dict[str, str]:
    """The headers that state why the part of a job has no body."""
    return {"Raygrid-Problem": problem_document(error).type, "Raygrid-Problem-Detail": quote(str(error))}


def _head(boundary: str, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"--{boundary}\r\n{lines}\r\n".encode()


# --- events ---------------------------------------------------------------------------------------------------------


async def job_events(parent: Parent, caller: Caller, job_id: str, after: int, wait_s: float) -> AsyncIterator[bytes]:
    """State changes of one job; ends when the job has ended."""
    heartbeat = _Heartbeat()
    with closing(_Changes(parent, caller, wait_s, job_id)) as changes:
        while True:
            changes.look()
            job = await parent.job(job_id)
            if not changes.may_go_on:
                return
            if job.revision > after:
                after = job.revision
                batches = await parent.store.batches_of([job_id])
                yield _event(after, job, batches.get(job_id, ()))
                heartbeat.restart()
            if job.state.is_terminal:
                yield _end(after)
                return
            if changes.left_s <= 0:
                return
            await changes.wait()
            if heartbeat.is_due():
                yield HEARTBEAT


async def batch_events(
    parent: Parent, caller: Caller, batch_id: str, after: int, wait_s: float
) -> AsyncIterator[bytes]:
    """State changes of a batch's jobs, the latest of each job; ends when all have ended."""
    heartbeat = _Heartbeat()
    with closing(_Changes(parent, caller, wait_s)) as changes:
        async for page, finished in _pages(parent, batch_id, after, changes):
            if page:
                after = page[-1].cursor
                batches = await parent.store.batches_of([each.job.job_id for each in page])
                yield b"".join(_event(each.cursor, each.job, batches.get(each.job.job_id, ())) for each in page)
                heartbeat.restart()
            elif heartbeat.is_due():
                yield HEARTBEAT
            if finished:
                yield _end(after)


class _Heartbeat:
    """Whether a stream has sent nothing for so long that a proxy may close it."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._since = asyncio.get_running_loop().time()

    def is_due(self) -> bool:
        if asyncio.get_running_loop().time() - self._since < HEARTBEAT_S:
            return False
        self.restart()
        return True


def _event(revision: int, job: StoredJob, batches: Sequence[str]) -> bytes:
    # Some clients also end a line at these characters, which JSON has only inside texts.
    data = job_status(job, batches=batches).model_dump_json(by_alias=True).translate(_LINE_ENDS)
    return f"id: {revision}\nevent: state\ndata: {data}\n\n".encode()


def _end(revision: int) -> bytes:
    return f"id: {revision}\nevent: end\ndata: {{}}\n\n".encode()
