"""Long answers: the results of a batch as they end, and state changes as server-sent events.

Both read the job store from a cursor and can be resumed from the last cursor seen, at this parent or another; what
leaders tell only wakes them sooner. No stream stays open for more than a few minutes, so that nothing needs to.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from urllib.parse import quote

from raygrid.errors import DamagedResultError, ResultExpiredError
from raygrid.models import JobState, StoredJob
from raygrid.parent.http.problems import problem_of
from raygrid.parent.http.schemas import job_status
from raygrid.parent.results import gone
from raygrid.parent.service import LOOK_AGAIN_S, Parent
from raygrid.store import Changed

PAGE = 256
PAGE_BYTES = 16 * 1024**2
HEARTBEAT_S = 15.0
# Streams that wait for "anything" look at most this often while jobs go on ending. The first looks after a quiet while
# come sooner: a few jobs are told at once.
BREATH_S = 0.05
FIRST_BREATH_S = 0.004
_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


class _Pace:
    """Waits for the next change worth a look, until the stream's time is over."""

    def __init__(self, parent: Parent, wait_s: float, job_id: str | None = None) -> None:
        self._waiters = parent.waiters
        self._job_id = job_id
        self._changed = self._waiters.watch_all() if job_id is None else self._waiters.watch_job(job_id)
        self._looked_at = asyncio.get_running_loop().time()
        self._breath_s = FIRST_BREATH_S
        self._until = self._looked_at + wait_s

    @property
    def left_s(self) -> float:
        return self._until - asyncio.get_running_loop().time()

    def look(self) -> None:
        """Note that the store is looked at now; later changes wake again."""
        self._changed.clear()
        self._looked_at = asyncio.get_running_loop().time()

    async def wait(self) -> None:
        try:
            async with asyncio.timeout(max(0.0, min(LOOK_AGAIN_S, self.left_s))):
                await self._changed.wait()
        except TimeoutError:
            return
        since_s = asyncio.get_running_loop().time() - self._looked_at
        if since_s >= BREATH_S:
            self._breath_s = FIRST_BREATH_S
            return
        await asyncio.sleep(self._breath_s - since_s)
        self._breath_s = min(2 * self._breath_s, BREATH_S)

    def close(self) -> None:
        self._waiters.forget(self._changed, self._job_id)


class _Unfinished:
    """Whether a batch still has jobs that have not ended, asked again and again.

    Counting the jobs of a large batch at every look would cost more than all else that a stream does. One job that has
    not ended is proof enough, and the same one is asked for until it has.
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


# --- results of a batch ---------------------------------------------------------------------------------------------


async def batch_results(
    parent: Parent, batch_id: str, cursor: int, wait_s: float, boundary: str
) -> AsyncIterator[bytes]:
    """A multipart/mixed body: a part for each ended job, then a part that says whether more is to come."""
    pace = _Pace(parent, wait_s)
    unfinished = _Unfinished(parent, batch_id)
    complete = full = False
    try:
        while True:
            pace.look()
            if not full:
                # Asked before the page is read: whatever had ended by then is in this page or the next ones.
                complete = await unfinished.none_left()
            page = await parent.store.changed(batch_id, cursor, PAGE, ended_only=True)
            for group in _by_size(page):
                async for chunk in _parts(parent, group, boundary):
                    yield chunk
            if page:
                cursor = page[-1].cursor
            full = len(page) == PAGE
            if full:
                continue
            if complete or pace.left_s <= 0:
                break
            await pace.wait()
    finally:
        pace.close()
    body = json.dumps({"complete": complete, "cursor": cursor}).encode()
    headers = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Raygrid-End": "complete" if complete else "more",
    }
    yield _head(boundary, headers) + body + f"\r\n--{boundary}--\r\n".encode()


def _by_size(page: list[Changed]) -> list[list[Changed]]:
    """Cut a page so that the results of each piece fit into memory together; a huge one stands alone."""
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
    for each, found in zip(piece, bodies, strict=True):
        body = found if isinstance(found, bytes) else b""
        headers = _result_headers(each, len(body))
        if not isinstance(found, bytes) and each.job.result is not None:
            headers |= _problem_headers(found or gone(each.job))
        joined += _head(boundary, headers) + body + b"\r\n"
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
    """Say of a job why its result cannot be given any more; a part without a body alone would not tell."""
    return {"Raygrid-Problem": problem_of(error).type, "Raygrid-Problem-Detail": quote(str(error))}


def _head(boundary: str, headers: dict[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"--{boundary}\r\n{lines}\r\n".encode()


# --- events ---------------------------------------------------------------------------------------------------------


async def job_events(parent: Parent, job_id: str, after: int, wait_s: float) -> AsyncIterator[bytes]:
    """State changes of one job; ends with it."""
    pace = _Pace(parent, wait_s, job_id)
    quiet = _Quiet()
    try:
        while True:
            pace.look()
            job = await parent.job(job_id)
            if job.revision > after:
                after = job.revision
                batches = await parent.store.batches_of([job_id])
                yield _event(after, job, batches.get(job_id, ()))
                quiet.spoke()
            if job.state.is_terminal:
                yield _end(after)
                return
            if pace.left_s <= 0:
                return
            await pace.wait()
            if quiet.too_long():
                yield b": still here\n\n"
    finally:
        pace.close()


async def batch_events(parent: Parent, batch_id: str, after: int, wait_s: float) -> AsyncIterator[bytes]:
    """State changes of a batch's jobs, each job's latest; ends when all have ended."""
    pace = _Pace(parent, wait_s)
    quiet = _Quiet()
    unfinished = _Unfinished(parent, batch_id)
    finished = full = False
    try:
        while True:
            pace.look()
            if not full:
                finished = await unfinished.none_left()  # before the page, as in `batch_results`
            page = await parent.store.changed(batch_id, after, PAGE)
            if page:
                after = page[-1].cursor
                batches = await parent.store.batches_of([each.job.job_id for each in page])
                yield b"".join(_event(each.cursor, each.job, batches.get(each.job.job_id, ())) for each in page)
                quiet.spoke()
            full = len(page) == PAGE
            if full:
                continue
            if finished:
                yield _end(after)
                return
            if pace.left_s <= 0:
                return
            await pace.wait()
            if quiet.too_long():
                yield b": still here\n\n"
    finally:
        pace.close()


class _Quiet:
    """How long a stream has said nothing; a comment now and then keeps proxies from cutting it."""

    def __init__(self) -> None:
        self.spoke()

    def spoke(self) -> None:
        self._since = asyncio.get_running_loop().time()

    def too_long(self) -> bool:
        if asyncio.get_running_loop().time() - self._since < HEARTBEAT_S:
            return False
        self.spoke()
        return True


def _event(revision: int, job: StoredJob, batches: Sequence[str]) -> bytes:
    # Some clients end a line at these, too; in JSON they can only stand in a text.
    data = job_status(job, batches=batches).model_dump_json(by_alias=True).translate(_LINE_ENDS)
    return f"id: {revision}\nevent: state\ndata: {data}\n\n".encode()


def _end(revision: int) -> bytes:
    return f"id: {revision}\nevent: end\ndata: {{}}\n\n".encode()
