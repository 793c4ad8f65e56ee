"""The job store in plain dicts: what `SqlStore` does, without a database, for tests and simulations.

Nothing outlives the object, and only one event loop may use it: a method that never awaits is a transaction. The caller
gives the time (`clock`), so that a simulation can run a week of leases in a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from raygrid.core.attempt_counts import NO_ATTEMPTS, AttemptCounts
from raygrid.errors import ConflictError, StaleTermError
from raygrid.models import BlobSlice, JobSpec, JobState, JobUpdate, NewJob, QueuedJob, StoredJob
from raygrid.store.port import (
    MOST_COUNTED,
    NO_HOLDER,
    BatchSummary,
    BatchSummaryPage,
    Changed,
    Inserted,
    OwnerUsage,
    Purged,
    Reusable,
    Unfinished,
)
from raygrid.store.rows import HIDDEN, UNLED, no_such_cursor, reusable_content, storable_text
from tests.simulation.memory_store_grid import MemoryGridTables


@dataclass(slots=True)
class _Row:
    """A job with what only leaders need: its place in the order of arrival, and the inline input."""

    job: StoredJob
    seq: int
    inline: bytes | None
    counts: AttemptCounts = NO_ATTEMPTS
    content: str | None = None  # once it is done with a result that may be reused
    chunks: bytes | None = None  # digests of the result's chunks

    @property
    def is_reusable(self) -> bool:
        return self.content is not None and self.job.purged_at is None


@dataclass(slots=True)
class _Batch:
    submitted_at: datetime
    owner: str = ""
    members: dict[str, int] = field(default_factory=dict)  # job id to the cursor of its latest change
    joined: dict[str, int] = field(default_factory=dict)  # job id to the revision at which it joined


class MemoryStore(MemoryGridTables):
    """`JobStore` in plain dicts.

    Args:
        clock: the store's clock, aware and UTC; this machine's where none is given.
    """

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        super().__init__(clock or (lambda: datetime.now(UTC)))
        self._rows: dict[str, _Row] = {}
        self._batches: dict[str, _Batch] = {}
        self._revision = 0

    @property
    def is_single_machine(self) -> bool:
        """It lives in one process."""
        return True

    async def open(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to close; what was stored stays as long as the object."""

    # --- jobs -----------------------------------------------------------------------------------------------

    async def insert(
        self, jobs: Sequence[NewJob], batch_id: str | None = None, batch_owner: str = ""
    ) -> list[Inserted]:
        """Insert jobs as queued, or as done where they take over a result; see `JobStore.insert`."""
        now = self._clock()
        known = self._batches.get(batch_id or "")
        may_join = known is None or known.owner == batch_owner
        if known is not None and not may_join and (known.owner or not all(new.may_join_unowned for new in jobs)):
            raise ConflictError(f"the batchId {batch_id!r} is taken by another owner; choose another batchId")
        before = {new.spec.job_id: self._rows[new.spec.job_id].job for new in jobs if self._has(new)}
        answers = []
        for new in jobs:
            job_id = new.spec.job_id
            created = job_id not in self._rows
            if created:
                self._rows[job_id] = self._new_row(new, now)
            job = self._rows[job_id].job
            conflict = job.fingerprint != new.fingerprint or not new.may_join(job.owner)
            reused_from = None if conflict or job_id in before else job.reused_from
            foreign = not new.may_join(job.owner)
            answers.append(Inserted(created, before.get(job_id), conflict, reused_from, foreign))
        if batch_id is not None and (not answers or not all(answer.conflict for answer in answers)):
            batch = self._batches.setdefault(batch_id, _Batch(now, batch_owner))
            for new, answer in zip(jobs, answers, strict=True):
                if not answer.conflict and new.spec.job_id not in batch.members:
                    batch.members[new.spec.job_id] = batch.joined[new.spec.job_id] = self._next_revision()
        return answers

    def _has(self, new: NewJob) -> bool:
        return new.spec.job_id in self._rows

    def _new_row(self, new: NewJob, now: datetime) -> _Row:
        revision = self._next_revision()
        job = _queued(new, revision, now)
        source = self._rows.get(new.source or "")
        if source is None or not source.is_reusable:
            return _Row(job, revision, new.spec.inline)
        ran, result = source.job.reused_from or source.job.job_id, source.job.result
        ran = ran if source.job.owner == job.owner else HIDDEN
        job = replace(job, state=JobState.DONE, ended_at=now, reused_from=ran, result=result, exit_code=0)
        return _Row(job, revision, None, content=source.content, chunks=source.chunks)

    async def reusable(self, contents: Sequence[str]) -> dict[str, Reusable]:
        """For each of these contents the latest job with a result; see `JobStore.reusable`."""
        wanted = set(contents)
        rows = sorted(self._rows.values(), key=lambda row: row.seq)
        return {
            row.content: Reusable(row.job.job_id, row.job.result)
            for row in rows
            if row.is_reusable and row.content in wanted and row.job.result is not None
        }

    async def result_chunks(self, job_id: str) -> bytes | None:
        """The digests of the chunks of a job's result; see `JobStore.result_chunks`."""
        return self._rows[job_id].chunks if job_id in self._rows else None

    async def stop_reuse(self, result: BlobSlice) -> int:
        """Let no further job take over this result; see `JobStore.stop_reuse`."""
        found = [
            row
            for row in self._rows.values()
            if row.content is not None and row.job.result is not None and row.job.result[:2] == result[:2]
        ]
        for row in found:
            row.content = None
        return len(found)

    def _next_revision(self) -> int:
        self._revision += 1
        return self._revision

    def _change(self, job: StoredJob) -> None:
        """Let readers of its batches see a changed job."""
        self._rows[job.job_id].job = job
        for batch in self._batches.values():
            if job.job_id in batch.members:
                batch.members[job.job_id] = job.revision

    async def get(self, job_ids: Sequence[str]) -> dict[str, StoredJob]:
        """The jobs that exist among these."""
        return {job_id: self._rows[job_id].job for job_id in job_ids if job_id in self._rows}

    async def record(self, group_id: str, term: int, updates: Sequence[JobUpdate]) -> bool:
        """Write a leader's updates under its term; see `JobStore.record`."""
        if not updates:
            return True
        lease = self._leases.get(group_id)
        current = lease.term if lease else None
        if current != term:
            raise StaleTermError(f"group {group_id}: term {term} is stale, the current one is {current}; step down")
        written = 0
        for update in updates:
            row = self._rows.get(update.job_id)
            if row is not None and row.job.group_id == group_id and not row.job.state.is_terminal:
                if update.counts.started >= row.counts.started:  # else the writer does not know the ends of the others
                    row.counts = update.counts
                self._change(_updated(row, update, self._next_revision()))
                row.content = reusable_content(update)
                row.chunks = update.report.chunks if update.report else None
                written += 1
        return written == len(updates)

    async def queued(self, group_id: str, limit: int) -> list[QueuedJob]:
        """The first queued jobs of a group, in the order in which they should run."""
        return [_held(row) for row in self._line(group_id)[:limit]]

    async def running(self, group_id: str) -> list[QueuedJob]:
        """The jobs of a group that are recorded as running."""
        return [_held(row) for row in self._of_group(group_id, JobState.RUNNING)]

    async def unfinished_of(self, group_id: str, job_ids: Sequence[str]) -> list[QueuedJob]:
        """Those of these jobs that are a group's and have not ended."""
        found = (self._rows[job_id] for job_id in dict.fromkeys(job_ids) if job_id in self._rows)
        return [_held(row) for row in found if row.job.group_id == group_id and not row.job.state.is_terminal]

    async def count_queued(self, group_id: str) -> int:
        """How many jobs of a group are queued."""
        return sum(1 for _ in self._of_group(group_id, JobState.QUEUED))

    async def queue_position(self, job: StoredJob) -> int:
        """How many queued jobs of its group stand before this one."""
        row = self._rows.get(job.job_id)
        if row is None:
            return sum(other.job.priority > job.priority for other in self._line(job.group_id))
        return sum(_turn(other) < _turn(row) for other in self._line(job.group_id))

    def _of_group(self, group_id: str, state: JobState) -> Iterable[_Row]:
        return (row for row in self._rows.values() if row.job.group_id == group_id and row.job.state is state)

    def _line(self, group_id: str) -> list[_Row]:
        return sorted(self._of_group(group_id, JobState.QUEUED), key=_turn)

    async def request_cancel(self, job_ids: Sequence[str], by: str = "") -> list[StoredJob]:
        """Mark unfinished jobs as to be cancelled; gives those."""
        unfinished = []
        for job_id in dict.fromkeys(job_ids):
            row = self._rows.get(job_id)
            if row is None or row.job.state.is_terminal:
                continue
            if not row.job.cancel_requested:
                asked = replace(row.job, cancel_requested=True, cancelled_by=by or None)
                self._change(replace(asked, revision=self._next_revision()))
            unfinished.append(row.job)
        return unfinished

    async def jobs(
        self,
        *,
        state: JobState | None = None,
        batch_id: str | None = None,
        after: str | None = None,
        limit: int = 100,
        owner: str | None = None,
    ) -> list[StoredJob]:
        """A page of jobs, those of a batch as they were submitted to it; see `JobStore.jobs`."""
        batch = self._batches.get(batch_id) if batch_id is not None else None
        if batch_id is None:
            ids = [job_id for job_id in sorted(self._rows) if after is None or job_id > after]
        else:
            ids = list(batch.members) if batch else []  # in the order in which they joined
            if after is not None:
                if after not in ids or owner not in (None, self._rows[after].job.owner):
                    raise no_such_cursor(after, f"job of batch {batch_id}")
                ids = ids[ids.index(after) + 1 :]
        found = (self._rows[job_id].job for job_id in ids)
        found = (job for job in found if owner is None or job.owner == owner)
        return [job for job in found if state is None or job.state is state][:limit]

    async def usage(self, owner: str) -> OwnerUsage:
        """What an owner uses."""
        unfinished = [
            row.job for row in self._rows.values() if row.job.owner == owner and not row.job.state.is_terminal
        ]
        data = (each.data.size for each in self._data.values() if each.owner == owner)
        return OwnerUsage(len(unfinished), sum(job.input.size for job in unfinished) + sum(data))

    # --- batches --------------------------------------------------------------------------------------------

    async def batch(self, batch_id: str) -> BatchSummary | None:
        """How far a batch is."""
        batch = self._batches.get(batch_id)
        if batch is None:
            return None
        counts = Counter(self._rows[job_id].job.state for job_id in batch.members)
        reused = sum(self._rows[job_id].job.reused_from is not None for job_id in batch.members)
        return BatchSummary(batch_id, batch.submitted_at, dict(counts), reused, batch.owner)

    async def batches(
        self,
        *,
        after: str | None = None,
        limit: int = 20,
        most_jobs: int = MOST_COUNTED,
        owner: str | None = None,
    ) -> BatchSummaryPage:
        """A page of batches, the newest first; see `JobStore.batches`."""
        ids = sorted(self._batches, key=lambda batch_id: (self._batches[batch_id].submitted_at, batch_id), reverse=True)
        ids = [batch_id for batch_id in ids if owner is None or self._batches[batch_id].owner == owner]
        if after is not None:
            if after not in ids:
                raise no_such_cursor(after, "batch")
            ids = ids[ids.index(after) + 1 :]
        page: list[BatchSummary] = []
        for batch_id in ids[:limit]:
            summary = await self.batch(batch_id)
            assert summary is not None
            page.append(summary)
            if sum(each.total for each in page) >= most_jobs:
                break
        return BatchSummaryPage(page, len(page) < len(ids))

    async def batches_of(self, job_ids: Sequence[str]) -> dict[str, list[str]]:
        """The batches that these jobs belong to."""
        found: dict[str, list[tuple[int, str]]] = {}
        for batch_id, batch in self._batches.items():
            for job_id in batch.members.keys() & set(job_ids):
                found.setdefault(job_id, []).append((batch.joined[job_id], batch_id))
        return {job_id: [batch_id for _, batch_id in sorted(joined)] for job_id, joined in found.items()}

    async def unfinished_of_batch(self, batch_id: str, limit: int | None = None) -> list[str]:
        """Ids of the jobs of a batch that have not ended."""
        batch = self._batches.get(batch_id)
        members = batch.members if batch else {}
        in_order = sorted(members, key=members.__getitem__)
        return [job_id for job_id in in_order if not self._rows[job_id].job.state.is_terminal][:limit]

    async def changed(self, batch_id: str, after: int, limit: int, *, ended_only: bool = False) -> list[Changed]:
        """The jobs of a batch that changed after a cursor."""
        batch = self._batches.get(batch_id)
        members = batch.members if batch else {}
        news = sorted((cursor, job_id) for job_id, cursor in members.items() if cursor > after)
        found = (Changed(cursor, self._rows[job_id].job) for cursor, job_id in news)
        return [change for change in found if change.job.state.is_terminal or not ended_only][:limit]

    # --- groups without a leader ----------------------------------------------------------------------------

    async def unfinished(
        self, group_id: str, limit: int, *, running: bool = True, to_cancel: bool = False
    ) -> list[Unfinished]:
        """The first unfinished jobs of a group; see `JobStore.unfinished`."""
        found = [row.job for row in self._of_group(group_id, JobState.RUNNING)] if running else []
        found += [row.job for row in self._line(group_id)]
        found = [job for job in found if job.cancel_requested or not to_cancel]
        return [Unfinished(job.job_id, job.affinity, job.site) for job in found[:limit]]

    async def count_unfinished(self, group_ids: Sequence[str]) -> dict[str, int]:
        """How many jobs of these groups have not ended."""
        unfinished = (row.job.group_id for row in self._rows.values() if not row.job.state.is_terminal)
        return dict(Counter(group_id for group_id in unfinished if group_id in group_ids))

    async def move(self, from_group: str, to: Mapping[str, str], *, unled: bool = False) -> dict[str, list[QueuedJob]]:
        """Give jobs of a group to others; see `JobStore.move`."""
        moved: dict[str, list[QueuedJob]] = {}
        if unled and not self._take_from_leaders(from_group):
            return moved
        for job_id, group_id in to.items():
            row = self._rows.get(job_id)
            if row is None or row.job.group_id != from_group or group_id == from_group:
                continue
            if row.job.state is JobState.QUEUED or (unled and row.job.state is JobState.RUNNING):
                revision = self._next_revision()
                queued = replace(row.job, group_id=group_id, state=JobState.QUEUED, node_id=None, revision=revision)
                self._change(queued)
                moved.setdefault(group_id, []).append(_held(row))
        return moved

    async def cancel_unled(
        self, group_id: str, job_ids: Sequence[str] | None = None, *, running: bool = False, limit: int = 1_000
    ) -> list[str] | None:
        """End jobs that are to be cancelled while their group has no leader; see `JobStore.cancel_unled`."""
        if not self._take_from_leaders(group_id):
            return None
        wanted = await self.unfinished(group_id, len(self._rows), running=running, to_cancel=True)
        found = [each.job_id for each in wanted]
        ended = [job_id for job_id in found if job_ids is None or job_id in job_ids][:limit]
        for job_id in ended:
            job = replace(self._rows[job_id].job, state=JobState.CANCELLED, reason="cancelled", message=UNLED)
            self._change(replace(job, ended_at=self._clock(), revision=self._next_revision()))
        return ended

    def _take_from_leaders(self, group_id: str) -> bool:
        """Let no earlier leader write any more; False if one leads."""
        lease = self._leases.get(group_id)
        if lease is not None and lease.expires_at > self._clock():
            return False
        if lease is not None and lease.holder != NO_HOLDER:
            self._leases[group_id] = replace(lease, holder=NO_HOLDER, term=lease.term + 1)
        return True

    # --- retention ------------------------------------------------------------------------------------------

    async def purge(self, ended_before: datetime, limit: int = 1_000) -> Purged:
        """Mark jobs that ended before an instant as purged; see `JobStore.purge`."""
        now = self._clock()
        old = [
            (row.job.ended_at, row)
            for row in self._rows.values()
            if row.job.purged_at is None and row.job.ended_at is not None and row.job.ended_at < ended_before
        ]
        old = sorted(old, key=lambda pair: pair[0])[:limit]
        keys = {key for _, row in old for key in _blob_keys(row.job)}
        for _, row in old:
            row.job = replace(row.job, purged_at=now, stderr_tail=None)
            row.inline = row.chunks = None
        return Purged(len(old), tuple(sorted(keys - await self.blobs_in_use(list(keys)))))

    async def purge_definitions(self, stored_before: datetime) -> int:
        """Remove definitions that nothing needs any more; see `JobStore.purge_definitions`."""
        needed = {row.job.definition for row in self._rows.values() if not row.job.state.is_terminal}
        old = {digest for digest, at in self._definitions_stored_at.items() if at < stored_before}
        for digest in old - needed:
            del self._definitions[digest], self._definitions_stored_at[digest]
        return len(old - needed)

    async def start_purge_of_data(self, used_before: datetime) -> list[str]:
        """Mark contents that nothing needs any more; see `JobStore.start_purge_of_data`."""
        unfinished = (row.job for row in self._rows.values() if not row.job.state.is_terminal)
        needed = {each.digest for job in unfinished for each in job.data}
        needed |= {each.data.digest for each in self._data.values()}
        self._going |= {digest for digest, at in self._contents.items() if at < used_before} - needed
        return sorted(self._going)

    async def blobs_in_use(self, keys: Sequence[str]) -> set[str]:
        """Which of these blobs a job that is not purged refers to."""
        wanted = set(keys)
        return {
            key
            for row in self._rows.values()
            if row.job.purged_at is None
            for key in _blob_keys(row.job)
            if key in wanted
        }


def _turn(row: _Row) -> tuple[int, int]:
    return (-row.job.priority, row.seq)


def _blob_keys(job: StoredJob) -> list[str]:
    keys = [job.input.key, job.result.key if job.result else ""]
    return [key for key in keys if key]


def _queued(new: NewJob, revision: int, now: datetime) -> StoredJob:
    spec = new.spec
    return StoredJob(
        job_id=spec.job_id,
        fingerprint=new.fingerprint,
        pricer=spec.pricer,
        version=spec.version,
        args=spec.args,
        priority=spec.priority,
        affinity=new.affinity,
        site=new.site,
        timeout_s=spec.timeout_s,
        filename=spec.filename,
        input=spec.input,
        data=spec.data,
        group_id=new.group_id,
        state=JobState.QUEUED,
        attempts=0,
        node_id=None,
        reason=None,
        message=None,
        exit_code=None,
        signal=None,
        stderr_tail=None,
        result=None,
        cancel_requested=False,
        revision=revision,
        submitted_at=now,
        started_at=None,
        ended_at=None,
        purged_at=None,
        definition=spec.definition,
        owner=spec.owner,
    )


def _updated(row: _Row, update: JobUpdate, revision: int) -> StoredJob:
    job, report = row.job, update.report
    started_at = update.at if update.state is JobState.RUNNING else report.started_at if report else None
    return replace(
        job,
        state=update.state,
        attempts=row.counts.began,
        node_id=update.node_id,
        reason=update.reason,
        message=storable_text(update.message),
        exit_code=report.exit_code if report else None,
        signal=report.signal if report else None,
        stderr_tail=storable_text(report.stderr_tail) if report else None,
        result=report.result if report else None,
        started_at=started_at or job.started_at,
        ended_at=update.at if update.state.is_terminal else None,
        revision=revision,
    )


def _held(row: _Row) -> QueuedJob:
    job = row.job
    return QueuedJob(
        counts=row.counts,
        spec=JobSpec(
            job_id=job.job_id,
            pricer=job.pricer,
            version=job.version,
            input=job.input,
            filename=job.filename,
            args=job.args,
            priority=job.priority,
            timeout_s=job.timeout_s,
            inline=row.inline,
            data=job.data,
            definition=job.definition,
            owner=job.owner,
        ),
        node_id=job.node_id,
        running=job.state is JobState.RUNNING,
        cancel_requested=job.cancel_requested,
    )
