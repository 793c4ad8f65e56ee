"""Stores results, small ones together in packs and large ones alone, before their attempts are reported.

One thread. Results that arrive while a pack is being written go into the next pack: with more load, more results share
a blob, its flush to disk and its cache entry.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from raygrid.blobs import BlobStore, new_result_key
from raygrid.models import AttemptReport, BlobSlice, Outcome
from raygrid.node.attempt.stages import FinishedAttempt, ResultZip
from raygrid.node.cache import ResultCache
from raygrid.node.traffic import TrafficMeter

PACK_LIMIT = 8 * 1024**2
# While attempts wait for a slot, results are gathered for so long: all slots stay busy, and more results share each
# write, flush, report and commit.
GATHER_S = 0.1
STEP_S = 0.01  # the queue is polled: waking the thread for each result would cost a good part of a short job
# A result that cannot be stored is tried again for as long as its attempt took; then running it again is as fast.
TRIES = 4
TRY_S = 10.0
KEEP_S = 60.0
PAUSE_S = 2.0

_Pack: TypeAlias = tuple[str, bytes, list[tuple[str, int, int]]]  # key, content, and for each job offset and size


class Publisher:
    """Stores the ZIPs of finished attempts, then delivers their reports.

    `is_saturated` returns whether attempts wait for a slot; `trouble` states why results cannot be stored now.
    """

    def __init__(
        self,
        node_id: str,
        blobs: BlobStore,
        cache: ResultCache,
        deliver: Callable[[Sequence[AttemptReport]], None],
        is_saturated: Callable[[], bool],
        traffic: TrafficMeter | None = None,
    ) -> None:
        self._traffic = traffic or TrafficMeter()
        self._is_saturated = is_saturated
        self._node_id = node_id
        self._blobs = blobs
        self._cache = cache
        self._deliver = deliver
        self._queue: queue.SimpleQueue[FinishedAttempt | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="raygrid-publisher", daemon=True)
        self._closing = False
        self.trouble: str | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Store the results that are queued, then end the thread."""
        self._closing = True
        self._queue.put(None)
        self._thread.join(timeout=30)

    def put(self, finished: FinishedAttempt) -> None:
        """Queue an attempt that has ended."""
        self._queue.put(finished)

    def _work(self) -> None:
        open_ended = True
        while open_ended:
            batch, open_ended = self._gather()
            if batch:
                self._publish(batch)

    def _gather(self) -> tuple[list[FinishedAttempt], bool]:
        """The next results to store together, and whether more may follow."""
        batch: list[FinishedAttempt] = []
        size = 0
        next_one = self._queue.get()
        until = time.monotonic() + GATHER_S
        while next_one is not None:
            batch.append(next_one)
            size += next_one.zip.size if next_one.zip is not None and next_one.zip.data is not None else 0
            if size > PACK_LIMIT:
                return batch, True
            try:
                next_one = self._next(until)
            except queue.Empty:
                return batch, True
        return batch, False

    def _next(self, until: float) -> FinishedAttempt | None:
        """The next queued result, also waiting for one while attempts wait for a slot; else raises queue.Empty."""
        while True:
            try:
                return self._queue.get_nowait()
            except queue.Empty:
                if time.monotonic() >= until or not self._is_saturated():
                    raise
            time.sleep(STEP_S)

    def _publish(self, batch: list[FinishedAttempt]) -> None:
        reports = [each.report for each in batch if each.zip is None]
        zipped = [(each.report, each.zip) for each in batch if each.zip is not None]
        packed = [(report, made) for report, made in zipped if made.data is not None]
        pack = None
        if packed:
            pack, stored = self._store_pack(packed)
            reports += stored
        reports += [self._store_file(report, made, made.path) for report, made in zipped if made.path is not None]
        self._deliver(reports)
        if pack is not None:
            # After the reports, which must not wait for this; until then, results are read from the blob store.
            self._cache.add(*pack)

    def _store_pack(self, packed: list[tuple[AttemptReport, ResultZip]]) -> tuple[_Pack | None, list[AttemptReport]]:
        """Store small results as one blob; return the pack for the cache, and the reports."""
        key, offset = new_result_key(), 0
        slices: list[BlobSlice] = []
        for _, made in packed:
            slices.append(BlobSlice(key, offset, made.size, made.digest))
            offset += made.size
        data = b"".join([made.data for _, made in packed if made.data is not None])
        problem = self._store(lambda: self._blobs.put_now(key, data), _worth_s([report for report, _ in packed]))
        if problem is not None:
            return None, [self._lost_result(report, problem) for report, _ in packed]
        self._traffic.add(results=len(data))
        stored = list(zip(packed, slices, strict=True))
        positions = [(report.attempt.job_id, piece.offset, piece.size) for (report, _), piece in stored]
        reports = [replace(report, result=piece, chunks=made.chunks) for (report, made), piece in stored]
        return (key, data, positions), reports

    def _store_file(self, report: AttemptReport, made: ResultZip, path: Path) -> AttemptReport:
        """Store a large result; return the report."""
        key = new_result_key()
        try:
            problem = self._store(lambda: self._blobs.put_file_now(key, path), _worth_s([report]))
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        if problem is not None:
            return self._lost_result(report, problem)
        self._traffic.add(results=made.size)
        return replace(report, result=BlobSlice(key, 0, made.size, made.digest), chunks=made.chunks)

    def _store(self, write: Callable[[], None], worth_s: float) -> str | None:
        """Write, and try again for `worth_s` after errors; return the last error if no try succeeded."""
        began, tries = time.monotonic(), 0
        while True:
            try:
                write()
            except Exception as error:  # obstore's errors have no common base
                self.trouble = trouble = f"the blob store does not take results: {error}"
            else:
                self.trouble = None
                return None
            tries += 1
            pause_s = min(0.1 * 4 ** (tries - 1), PAUSE_S)
            spent_s = time.monotonic() - began + pause_s
            enough = tries >= TRIES or spent_s > TRY_S
            if enough and (self._closing or spent_s > worth_s):
                return trouble
            time.sleep(pause_s)

    def _lost_result(self, report: AttemptReport, problem: str) -> AttemptReport:
        """The report of an attempt whose result could not be stored, so that the job must run again."""
        message = f"node {self._node_id} could not store the result: {problem}"
        return AttemptReport(report.attempt, Outcome.INFRASTRUCTURE, message=message)


def _worth_s(reports: Sequence[AttemptReport]) -> float:
    """The seconds for which storing results is tried; after that, running their attempts again would be faster."""
    took_s = [
        (each.ended_at - each.started_at).total_seconds()
        for each in reports
        if each.started_at is not None and each.ended_at is not None
    ]
    return min(max(took_s, default=0.0), KEEP_S)
