"""Jobs in SQL: inserting, reading, updates of leaders, retention."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Integer, Select, and_, bindparam, case, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from raygrid.errors import StaleTermError
from raygrid.models import JobState, JobUpdate, NewJob, QueuedJob, StoredJob
from raygrid.store import rows
from raygrid.store.port import Inserted, OwnerUsage, Purged
from raygrid.store.prepared import prepared
from raygrid.store.sql_batches import SqlBatches
from raygrid.store.sql_database import SqlDatabase, shielded_write, threaded_read
from raygrid.store.sql_reuse import SqlReuse
from raygrid.store.sql_revisions import chunks, next_revisions, touch_batches
from raygrid.store.tables import Instant, jobs, leases, shared_data

_ATTEMPTS = bindparam("new_attempts", type_=Integer())
# A writer with a lower number of attempts than the store does not know the ends of the others.
_COUNTS = {
    name: case((jobs.c.attempts > _ATTEMPTS, jobs.c[name]), else_=bindparam(f"new_{name}", type_=Integer()))
    for name in ("failures", "losses", "recalled", "unstarted")
}
_REPLACED = (
    *("state", "node_id", "reason", "message", "exit_code", "signal", "stderr_tail", "ended_at", "revision", "content"),
    *("result_key", "result_offset", "result_size", "result_digest", "result_chunks"),
)
_RECORD = prepared(
    update(jobs)
    .where(
        jobs.c.job_id == bindparam("the_job"),
        jobs.c.group_id == bindparam("the_group"),
        jobs.c.ended_at.is_(None),
    )
    .values(
        attempts=case((jobs.c.attempts > _ATTEMPTS, jobs.c.attempts), else_=_ATTEMPTS),
        **_COUNTS,
        started_at=func.coalesce(bindparam("new_started_at", type_=Instant()), jobs.c.started_at),
        **{name: bindparam(f"new_{name}") for name in _REPLACED},
    )
)

# On PostgreSQL the row stays locked against changes until the transaction ends.
_TERM = prepared(select(leases.c.term).where(leases.c.group_id == bindparam("the_group")).with_for_update(read=True))
_JOB = prepared(select(*rows.JOB_COLUMNS).where(jobs.c.job_id == bindparam("the_job")))
_JOBS = select(*rows.JOB_COLUMNS).where(jobs.c.job_id.in_(bindparam("job_ids", expanding=True)))

_PURGED = {"inline": None, "stderr_tail": None, "result_chunks": None}
_CANCEL = (
    update(jobs)
    .where(
        jobs.c.job_id == bindparam("the_job"),
        jobs.c.ended_at.is_(None),
        jobs.c.cancel_requested.is_(False),
    )
    .values(cancel_requested=True, cancelled_by=bindparam("new_by"), revision=bindparam("new_revision"))
)


def _in_state(state: JobState, group_id: str) -> ColumnElement[bool]:
    return and_(jobs.c.group_id == group_id, jobs.c.state == state.value)


def _is_conflict(job: NewJob, fingerprint: str, owner: str) -> bool:
    """Whether a submit cannot attach to the job of its id, which has this fingerprint and owner."""
    return job.fingerprint != fingerprint or not job.may_join(owner)


class SqlJobs:
    """The table of jobs."""

    def __init__(self, database: SqlDatabase, batches: SqlBatches, reuse: SqlReuse) -> None:
        self._database = database
        self._batches = batches
        self._reuse = reuse

    # --- jobs ---------------------------------------------------------------------------------------------------

    @shielded_write
    async def insert(
        self, new_jobs: Sequence[NewJob], batch_id: str | None = None, batch_owner: str = ""
    ) -> list[Inserted]:
        """Insert jobs as queued, or as done if they reuse a result; see `JobStore.insert`."""
        by_id: dict[str, NewJob] = {}
        for job in new_jobs:
            by_id.setdefault(job.spec.job_id, job)  # of two jobs with the same id the first counts
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            revision = await next_revisions(connection, max(1, len(by_id)))
            if batch_id is not None:
                await self._batches.require_owner(connection, batch_id, batch_owner, new_jobs)
            existing = await self._select_jobs(connection, list(by_id))
            fresh = [job for job_id, job in by_id.items() if job_id not in existing]
            sources = await self._reuse.lock_sources(connection, [job.source for job in fresh if job.source])
            queued, taking = [], []
            for i, job in enumerate(fresh):
                if (source := sources.get(job.source or "")) is not None:
                    taking.append(rows.reused_row(job, source, revision + i, now))
                else:
                    queued.append(rows.new_row(job, revision + i, now))
            for values in (queued, taking):
                if values:
                    await connection.execute(self._database.insert_ignoring(jobs), values)
            if batch_id is not None:
                members = [
                    (job_id, revision + i)
                    for i, (job_id, job) in enumerate(by_id.items())
                    if (found := existing.get(job_id)) is None or not _is_conflict(job, found.fingerprint, found.owner)
                ]
                if members or not by_id:  # a batch of which every job is refused is not made
                    await self._batches.join(connection, batch_id, batch_owner, members, now)
        created = {job.spec.job_id for job in fresh}
        reused = {row["job_id"]: row["reused_from"] for row in taking}
        answers = []
        for job in new_jobs:
            job_id = job.spec.job_id
            found = existing.get(job_id)
            first = by_id[job_id]
            known = (found.fingerprint, found.owner) if found else (first.fingerprint, first.spec.owner)
            conflict = _is_conflict(job, *known)
            reused_from = None if conflict else reused.get(job_id)
            foreign = not job.may_join(known[1])
            answers.append(Inserted(job_id in created, found, conflict, reused_from, foreign))
            created.discard(job_id)  # a second job with the same id in this call is not created
        return answers

    async def _select_jobs(self, connection: AsyncConnection, job_ids: Sequence[str]) -> dict[str, StoredJob]:
        if len(job_ids) == 1:  # a single submit or a status request
            read = (await connection.execute(_JOB, {"the_job": job_ids[0]})).all()
        else:
            read = [row for chunk in chunks(job_ids) for row in await connection.execute(_JOBS, {"job_ids": chunk})]
        found = map(rows.job, read)
        return {job.job_id: job for job in found}

    @threaded_read
    async def get(self, job_ids: Sequence[str]) -> dict[str, StoredJob]:
        """The given jobs that exist, by id."""
        async with self._database.read() as connection:
            return await self._select_jobs(connection, job_ids)

    @shielded_write
    async def record(self, group_id: str, term: int, updates: Sequence[JobUpdate]) -> bool:
        """Write a leader's updates under its term; see `JobStore.record`."""
        if not updates:
            return True
        async with self._database.write() as connection:
            await self._require_term(connection, group_id, term)
            revision = await next_revisions(connection, len(updates))
            values = [
                {**rows.update_values(change, revision + i), "the_group": group_id} for i, change in enumerate(updates)
            ]
            # PostgreSQL's driver reports the row count of a single update, but not of many.
            written = (await connection.execute(_RECORD, values if len(values) > 1 else values[0])).rowcount
            await touch_batches(connection, [change.job_id for change in updates])
        return bool(written == len(updates))

    async def _require_term(self, connection: AsyncConnection, group_id: str, term: int) -> None:
        current = (await connection.execute(_TERM, {"the_group": group_id})).scalar_one_or_none()
        if current != term:
            raise StaleTermError(f"group {group_id}: term {term} is stale, the current one is {current}; step down")

    @threaded_read
    async def queued(self, group_id: str, limit: int) -> list[QueuedJob]:
        """The first queued jobs of a group, in the order in which they should run."""
        statement = select(*rows.HELD_COLUMNS).where(_in_state(JobState.QUEUED, group_id))
        return await self._queued_jobs(statement.order_by(jobs.c.priority.desc(), jobs.c.seq).limit(limit))

    @threaded_read
    async def running(self, group_id: str) -> list[QueuedJob]:
        """The jobs of a group that are recorded as running."""
        return await self._queued_jobs(select(*rows.HELD_COLUMNS).where(_in_state(JobState.RUNNING, group_id)))

    @threaded_read
    async def unfinished_of(self, group_id: str, job_ids: Sequence[str]) -> list[QueuedJob]:
        """The given jobs that belong to a group and have not ended."""
        unfinished = select(*rows.HELD_COLUMNS).where(jobs.c.group_id == group_id, jobs.c.ended_at.is_(None))
        found: list[QueuedJob] = []
        async with self._database.read() as connection:
            for chunk in chunks(list(dict.fromkeys(job_ids))):
                result = await connection.execute(unfinished.where(jobs.c.job_id.in_(chunk)))
                found += [rows.queued_job(row) for row in result]
        return found

    async def _queued_jobs(self, statement: Select[Any]) -> list[QueuedJob]:
        async with self._database.read() as connection:
            return [rows.queued_job(row) for row in await connection.execute(statement)]

    @threaded_read
    async def count_queued(self, group_id: str) -> int:
        """Number of queued jobs of a group."""
        return await self._count(_in_state(JobState.QUEUED, group_id))

    @threaded_read
    async def queue_position(self, job: StoredJob) -> int:
        """Number of queued jobs of the same group that come before a job."""
        seq = select(jobs.c.seq).where(jobs.c.job_id == job.job_id).scalar_subquery()
        before = or_(jobs.c.priority > job.priority, and_(jobs.c.priority == job.priority, jobs.c.seq < seq))
        return await self._count(_in_state(JobState.QUEUED, job.group_id) & before)

    async def _count(self, condition: ColumnElement[bool]) -> int:
        statement = select(func.count()).select_from(jobs).where(condition)
        async with self._database.read() as connection:
            return int((await connection.execute(statement)).scalar_one())

    @shielded_write
    async def request_cancel(self, job_ids: Sequence[str], by: str = "") -> list[StoredJob]:
        """Request the cancellation of jobs; see `JobStore.request_cancel`."""
        wanted = list(dict.fromkeys(job_ids))
        if not wanted:
            return []
        async with self._database.write() as connection:
            # This comes first: every writer of jobs holds this lock, so that writers never wait for each other's rows.
            revision = await next_revisions(connection, len(wanted))
            values = [
                {"the_job": job_id, "new_by": by or None, "new_revision": revision + i}
                for i, job_id in enumerate(wanted)
            ]
            await connection.execute(_CANCEL, values)
            await touch_batches(connection, wanted)
            found = await self._select_jobs(connection, wanted)
        return [found[job_id] for job_id in wanted if job_id in found and not found[job_id].state.is_terminal]

    @threaded_read
    async def usage(self, owner: str) -> OwnerUsage:
        """What an owner uses; see `JobStore.usage`."""
        inputs = select(func.count(), func.coalesce(func.sum(jobs.c.input_size), 0)).where(
            jobs.c.purged_at.is_(None), jobs.c.ended_at.is_(None), jobs.c.owner == owner
        )
        data = select(func.coalesce(func.sum(shared_data.c.size), 0)).where(shared_data.c.owner == owner)
        async with self._database.read() as connection:
            unfinished, size = (await connection.execute(inputs)).one()
            return OwnerUsage(unfinished, int(size) + int((await connection.execute(data)).scalar_one()))

    # --- retention ----------------------------------------------------------------------------------------------

    @shielded_write
    async def purge(self, ended_before: datetime, limit: int = 1_000) -> Purged:
        """Mark jobs that ended before an instant as purged; see `JobStore.purge`."""
        async with self._database.write() as connection:
            now = await self._database.now(connection)
            statement = (
                select(jobs.c.job_id, jobs.c.input_key, jobs.c.result_key)
                .where(jobs.c.purged_at.is_(None), jobs.c.ended_at < ended_before)
                .order_by(jobs.c.ended_at)
                .limit(limit)
                .with_for_update(skip_locked=True)  # two purges at once take different jobs
            )
            found = (await connection.execute(statement)).all()
            for chunk in chunks([row.job_id for row in found]):
                await connection.execute(update(jobs).where(jobs.c.job_id.in_(chunk)).values(purged_at=now, **_PURGED))
            keys = {key for row in found for key in (row.input_key, row.result_key) if key}
            in_use = await self._in_use(connection, list(keys))
        return Purged(len(found), tuple(sorted(keys - in_use)))

    @threaded_read
    async def blobs_in_use(self, keys: Sequence[str]) -> set[str]:
        """The given blobs that a job refers to that is not purged."""
        async with self._database.read() as connection:
            return await self._in_use(connection, keys)

    async def _in_use(self, connection: AsyncConnection, keys: Sequence[str]) -> set[str]:
        used: set[str] = set()
        for chunk in chunks(keys):
            for column in (jobs.c.input_key, jobs.c.result_key):
                statement = select(column).where(column.in_(chunk), jobs.c.purged_at.is_(None)).distinct()
                used.update((await connection.execute(statement)).scalars())
        return used
