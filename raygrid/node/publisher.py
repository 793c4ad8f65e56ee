"""Stores results, small ones together in packs and large ones alone, before their attempts are reported.

One thread. Results that arrive while a pack is being written go into the next pack: the higher the load, the more
results share a blob, its flush to disk and its entry in the cache.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from raygrid.blobs import BlobStore, new_result_key
from raygrid.models import AttemptReport, BlobSlice, Outcome
from raygrid.node.attempt.stages import FinishedAttempt
from raygrid.node.cache import ResultCache
from raygrid.node.traffic import TrafficMeter

PACK_LIMIT = 8 * 1024**2
# While attempts wait for a slot, results are gathered for so long: all slots are busy meanwhile, and more results
# share each write, flush, report and commit.
GATHER_S = 0.1
STEP_S = 0.01  # polled in steps: waking the thread for each result would cost a good part of a short job
# A result that cannot be stored is kept for as long as its attempt took; after that, running it again is no slower.
TRIES = 4
TRY_S = 10.0
KEEP_S = 60.0
PAUSE_S = 2.0


_Pack: TypeAlias = tuple[str, bytes, list[tuple[str, int, int]]]  # key, content, and for each job offset and size


class Publisher:
    """Stores the ZIPs of finished attempts, then delivers their reports. `close` ends its thread after the last one."""

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
        """The next results to store together, and whether more may come after them."""
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
        """The next result: one that is queued, or that arrives in time while attempts wait for a slot.

        Raises:
            queue.Empty: there is none.
        """
        while True:
            try:
                return self._queue.get_nowait()
            except queue.Empty:
                if time.monotonic() >= until or not self._is_saturated():
                    raise
            time.sleep(STEP_S)

    def _publish(self, batch: list[FinishedAttempt]) -> None:
        reports = [each.report for each in batch if each.zip is None]
        packed = [each for each in batch if each.zip is not None and each.zip.data is not None]
        pack = None
        if packed:
            pack, stored = self._store_pack(packed)
            reports += stored
        for each in batch:
            if each.zip is not None and each.zip.path is not None:
                reports.append(self._publish_file(each))
        self._deliver(reports)
        if pack is not None:
            # After the reports, which must not wait for it: until then, results are read from the blob store.
            self._cache.add(*pack)

    def _store_pack(self, packed: list[FinishedAttempt]) -> tuple[_Pack | None, list[AttemptReport]]:
        """Store results as one blob; return what to keep of it in the cache, and the reports."""
        key, offset = new_result_key(), 0
        slices: list[BlobSlice] = []
        for each in packed:
            assert each.zip is not None
            slices.append(BlobSlice(key, offset, each.zip.size, each.zip.digest))
            offset += each.zip.size
        data = b"".join(each.zip.data for each in packed if each.zip is not None and each.zip.data is not None)
        problem = self._store(lambda: self._blobs.put_now(key, data), _worth_s(packed))
        if problem is not None:
            return None, [self._lost_result(each.report, problem) for each in packed]
        self._traffic.add(results=len(data))
        positions = [(e.report.attempt.job_id, s.offset, s.size) for e, s in zip(packed, slices, strict=True)]
        reports = [
            replace(each.report, result=piece, chunks=each.zip.chunks if each.zip is not None else None)
            for each, piece in zip(packed, slices, strict=True)
        ]
        return (key, data, positions), reports

    def _publish_file(self, finished: FinishedAttempt) -> AttemptReport:
        assert finished.zip is not None
        assert finished.zip.path is not None
        path, key = finished.zip.path, new_result_key()
        try:
            problem = self._store(lambda: self._blobs.put_file_now(key, path), _worth_s([finished]))
        finally:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        if problem is not None:
            return self._lost_result(finished.report, problem)
        self._traffic.add(results=finished.zip.size)
        result = BlobSlice(key, 0, finished.zip.size, finished.zip.digest)
        return replace(finished.report, result=result, chunks=finished.zip.chunks)

    def _store(self, write: Callable[[], None], worth_s: float) -> str | None:
        """Write, and try again while that is worth it; return the error of the last try."""
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
        """The report of an attempt whose result could not be stored: the job must run again."""
        message = f"node {self._node_id} could not store the result: {problem}"
        return AttemptReport(report.attempt, Outcome.INFRASTRUCTURE, message=message)


def _worth_s(batch: Sequence[FinishedAttempt]) -> float:
    """The seconds for which storing results is tried: after that, running their attempts again would be faster."""
    took_s = [
        (each.report.ended_at - each.report.started_at).total_seconds()
        for each in batch
        if each.report.started_at is not None and each.report.ended_at is not None
    ]
    return min(max(took_s, default=0.0), KEEP_S)
